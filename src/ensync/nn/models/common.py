"""What the named networks have in common: their settings of widths and dropout."""

from collections.abc import Sequence

from ensync.core.config.schema import NetworkSettings
from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Layer
from ensync.nn.layers.dropout import Dropout
from ensync.nn.layers.normalization import Options

# of a batch normalisation as PyTorch builds it; the layer's own defaults are Keras'
PLAIN: Options = {"momentum": 0.9, "epsilon": 1e-5, "unbiased": True}


def hidden(settings: NetworkSettings, *widths: int) -> list[int]:
    """Return the widths of the dense layers before the last: these where the job gives none; an
    empty list is none at all.
    """
    return list(widths) if settings.hidden is None else settings.hidden


def rates(settings: NetworkSettings, defaults: Sequence[float]) -> list[float]:
    """Return the dropout rate of each place; EnsyncError when a list of them has another length."""
    given = settings.dropout
    if given is None:
        return list(defaults)
    found = given if isinstance(given, list) else [given] * len(defaults)
    if len(found) != len(defaults):
        raise EnsyncError(
            f"network.dropout = {found}",
            f"one rate, or one for each of the {len(defaults)} places of {settings.name}",
            "change the list",
        )
    return found


def dropout(rate: float) -> list[Layer]:
    """A dropout layer, none where nothing is dropped."""
    return [Dropout(rate)] if rate else []
