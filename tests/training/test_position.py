"""Why a training ended, in words."""

import pytest

from ensync.core.config.training import Training
from ensync.training.position import Position


@pytest.mark.parametrize(
    ("settings", "epoch", "updates", "told"),
    [
        ({"epochs": 1}, 1, 7, "all 1 epoch"),
        ({"epochs": 2}, 2, 14, "all 2 epochs"),
        ({"max_steps": 1}, 0, 1, "all 1 step"),
        ({"max_steps": 1200}, 3, 1200, "all 1,200 steps"),
        ({"epochs": 2}, 1, 7, "not yet, after epoch 1 of 2"),
    ],
)
def test_one_is_singular(settings, epoch, updates, told):
    assert Position(epoch=epoch).ended(Training(**settings), updates) == told
