"""What the named networks have in common: what their settings come to."""

from ensync.core.config.network import NETWORKS, NetworkSettings
from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Layer
from ensync.nn.layers.dropout import Dropout
from ensync.nn.layers.normalization import Options

# of a batch normalisation as PyTorch builds it; the layer's own defaults are Keras'
PLAIN: Options = {"momentum": 0.9, "epsilon": 1e-5, "unbiased": True}


def hidden(settings: NetworkSettings) -> list[int]:
    """Return the widths of the dense layers before the last; an empty list is none at all."""
    widths = NETWORKS[settings.name].hidden or ()
    return list(widths) if settings.hidden is None else settings.hidden


def activation(settings: NetworkSettings) -> str:
    """Return the activation of the hidden layers."""
    return settings.activation or NETWORKS[settings.name].activation or "identity"


def block_filters(settings: NetworkSettings) -> list[int]:
    """Return the filters of the convolutions of each block."""
    return settings.filters or list(NETWORKS[settings.name].filters or ())


def depth(settings: NetworkSettings) -> int:
    """Return the number of layers with weights."""
    return settings.depth or NETWORKS[settings.name].depth or 0


def rates(settings: NetworkSettings, places: int) -> list[float]:
    """Return the dropout rate of each place; EnsyncError when a list of them has another length."""
    given = NETWORKS[settings.name].dropout if settings.dropout is None else settings.dropout
    found = list(given) if isinstance(given, list | tuple) else [given or 0.0] * places
    if len(found) != places:
        raise EnsyncError(
            f"network.dropout = {found}",
            f"one rate, or one for each of the {places} places of {settings.name}",
            "change the list",
        )
    return found


def dropout(rate: float) -> list[Layer]:
    """A dropout layer, none where nothing is dropped."""
    return [Dropout(rate)] if rate else []
