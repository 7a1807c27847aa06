"""What core.config knows of layers and networks is what nn builds."""

from typing import get_args

import pytest

from ensync.core.config.layers import KINDS, Activation
from ensync.core.config.network import INITIALIZERS, NETWORKS
from ensync.kernels.elementwise.activations import ACTIVATIONS
from ensync.nn import initializers
from ensync.nn.layers.table import LAYERS, build_layers
from ensync.nn.models.zoo import BUILDERS

SETTINGS = {
    "convolution": {"filters": 16},
    "separable": {"filters": 32},
    "group_norm": {"groups": 4},
    "dropout": {"rate": 0.1},
    "residual": {"layers": [{"kind": "depthwise"}]},
    "parallel": {"branches": [[]]},
}


def test_each_name_is_built():
    assert list(LAYERS) == list(KINDS)
    assert list(BUILDERS) == list(NETWORKS)
    assert set(initializers.INITIALIZERS) == set(INITIALIZERS)
    assert set(ACTIVATIONS) == set(get_args(Activation))


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_with_bf16_are_those_whose_layers_have_it(kind):
    settings = KINDS[kind].model_validate({"kind": kind, **SETTINGS.get(kind, {})})
    (layer,) = build_layers([settings], 10)
    layer.bf16 = True
    layer.build((16, 16, 16))
    products = getattr(getattr(layer, "form", None), "is_winograd", False)
    both = layer.reads_bf16 and layer.writes_bf16
    assert KINDS[kind].bf16 == (products or both)
