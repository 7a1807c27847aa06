"""A flag keeps numba from compiling the branch that is not taken, in either form."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from ensync.kernels.flags import flag


@njit
def _chosen(first, second, other):
    found = first
    if other is None:
        found = second
    return found[0]


@njit
def chosen(first, second, other):
    return _chosen(first, second, other)


def test_the_other_branch_is_not_compiled():
    whole, real = np.ones(1, np.int64), np.zeros(1, np.float32)  # what could not be one variable
    assert chosen(whole, real, flag(True)) == 1
    assert chosen(whole, real, flag(None)) == chosen(whole, real, flag(False)) == 0
    with pytest.raises(TypingError):
        chosen(whole, real, True)
