"""What core.config knows of layers and networks is what nn builds."""

from typing import get_args

import pytest

from ensync.core.config.layers import INITIALIZERS, KINDS, Activation
from ensync.core.config.losses import LOSSES
from ensync.core.config.network import NETWORKS
from ensync.core.config.optimizers import OPTIMIZERS, Optimizer
from ensync.core.config.schedules import SCHEDULES, Schedule
from ensync.core.config.training import Training
from ensync.kernels.elementwise.activations import ACTIVATIONS
from ensync.nn import initializers
from ensync.nn.layers.table import LAYERS
from ensync.nn.loss import SQUARES
from ensync.nn.models.zoo import BUILDERS
from ensync.nn.optimizers import UPDATES
from ensync.nn.schedules import SHAPES


def test_each_name_is_built():
    assert list(LAYERS) == list(KINDS)
    assert list(BUILDERS) == list(NETWORKS)
    assert set(initializers.INITIALIZERS) == set(INITIALIZERS)
    assert set(ACTIVATIONS) == set(get_args(Activation))
    assert list(UPDATES) == list(OPTIMIZERS)
    assert list(SHAPES) == list(SCHEDULES)
    assert list(SQUARES) == [name for name, spec in LOSSES.items() if not spec.of_logits]


@pytest.mark.parametrize(
    ("table", "section"), [(OPTIMIZERS, Optimizer), (SCHEDULES, Schedule), (LOSSES, Training)]
)
def test_the_settings_of_a_table_are_declared(table, section):
    for spec in table.values():
        assert set(spec.settings) <= set(section.model_fields) and spec.help
