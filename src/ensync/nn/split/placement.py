"""Which part of a network a rank holds: the layers of the whole one in, those of the rank out.

The number of a layer, and the names of its parameters, stay as they are in the whole network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ensync.core.errors import EnsyncError
from ensync.nn.layers.activations import Softmax
from ensync.nn.layers.base import Layer, Shape
from ensync.nn.layers.branches import Residual
from ensync.nn.layers.convolution import Convolution, DepthwiseConvolution
from ensync.nn.layers.dense import Dense
from ensync.nn.layers.dropout import Dropout
from ensync.nn.layers.flatten import Flatten
from ensync.nn.layers.group_normalization import GroupNormalization
from ensync.nn.layers.normalization import BatchNormalization
from ensync.nn.layers.pooling import AveragePooling, GlobalAveragePooling, MaxPooling
from ensync.nn.layers.response import LocalResponseNormalization
from ensync.nn.layers.scaling import Scaling
from ensync.nn.split.exchange import Exchange
from ensync.nn.split.layers import Bordered, Gathered, PartDropout, Spread, Summed
from ensync.nn.split.rows import OnRows, Rows, RowsGathered

WHOLE = 0  # the block of values that every rank has whole


@dataclass(frozen=True)
class Place:
    """Where a layer stands on a rank: its number in words, the shape of its inputs there, and the
    block of channels that these are, or WHOLE. sums: whether a layer before it sums the gradients
    of whole inputs over the ranks.
    """

    number: str
    shape: Shape
    block: int
    exchange: Exchange
    sums: bool = False

    @property
    def is_first(self) -> bool:
        """Whether the inputs are the images, whose gradient nobody needs."""
        return self.number == "0"


Placed = tuple[Layer, int]  # a layer of this rank, and the block that its outputs are
Sequenced = tuple[list[Layer], int]


def split(
    layers: Sequence[Layer], shape: Shape, exchange: Exchange, by_rows: bool = False
) -> list[Layer]:
    """Return this rank's layers of a network on images of this shape, of which `layers` are the
    whole ones, built. Some of them are used again, and built anew. Collective.

    by_rows: whether layers before the first flatten or dense one are whole, for a part of the rows.
    Errors: EnsyncError for layers that cannot be cut into so many parts.
    """
    dense = [i for i, layer in enumerate(layers) if isinstance(layer, Dense)]
    place, output = Place("", shape, WHOLE, exchange), max(dense, default=-1)
    if not by_rows:
        return _sequence(layers, place, output)[0]
    border = next(i for i, layer in enumerate(layers) if isinstance(layer, Flatten | Dense))
    if border == 0 or len(dense) == 1:
        lacking = "dense layers before the last" if border else "convolutions"
        raise EnsyncError(
            f"parallel.convolutions = 'data' for a network without {lacking}",
            "convolutions, then dense layers, of which those before the last are split",
            "leave parallel.convolutions out",
        )
    rows = Rows(exchange)
    found: list[Layer] = [OnRows(layer, rows, i == 0) for i, layer in enumerate(layers[:border])]
    for own in found:
        shape = own.build(shape)
    place = Place("", shape, WHOLE, exchange, sums=True)
    first, *rest = _sequence(layers[border:], place, output - border, border)[0]
    return [*found, RowsGathered(first, rows), *rest]


def _sequence(layers: Sequence[Layer], place: Place, output: int = -1, first: int = 0) -> Sequenced:
    """Return this rank's part of layers one after the other, and the block that their outputs
    are; output: the number of the one whose outputs the loss takes, counted from the first of
    these, which itself is number `first` of all.
    """
    found: list[Layer] = []
    shape, block = place.shape, place.block
    for number, layer in enumerate(layers):
        name = f"{place.number}.{first + number}".removeprefix(".")
        rule = _output if number == output else _placed
        own, block = rule(layer, Place(name, shape, block, place.exchange, place.sums))
        shape = own.build(shape)
        found.append(own)
    return found, block


def _placed(layer: Layer, place: Place) -> Placed:
    rule = RULES.get(type(layer))
    if rule is None:
        raise _refusal(
            layer,
            place,
            "layers that can be split: convolutions, dense and pooling layers, normalisation, "
            "dropout, residual sums",
            "leave it out",
        )
    if place.sums and place.block == WHOLE and layer.parameters and not isinstance(layer, Dense):
        raise _refusal(
            layer,
            place,
            "no parameters between the last image and the first dense layer, with "
            "parallel.convolutions = 'data'",
            "put it before the flatten layer",
        )
    return rule(layer, place)


def _alike(layer: Layer, place: Place) -> Placed:
    """A layer that treats every channel by itself."""
    return layer, place.block


def _convolution(layer: Convolution, place: Place) -> Placed:
    ranks = place.exchange.ranks
    block = _share(layer.filters, "filters", layer, place)

    def part(groups: int) -> Convolution:
        activation, initializer = layer.activation.name, layer.initializer
        return Convolution(block, layer.window, groups, activation, layer.use_bias, initializer)

    if place.block == WHOLE:
        if layer.groups > 1:
            raise _refusal(layer, place, "one group of channels of the images", "set groups = 1")
        return part(1) if place.is_first else Spread(part(1), place.exchange), block
    if layer.groups % ranks == 0:
        return part(layer.groups // ranks), block
    if ranks % layer.groups == 0:
        readers = place.exchange.of_groups(layer.groups)
        return Gathered(part(1), readers, place.block), block
    raise _refusal(
        layer,
        place,
        f"a number of groups that divides {ranks}, or that {ranks} divides",
        "change groups",
    )


def _dense(layer: Dense, place: Place) -> Placed:
    block = _share(layer.units, "units", layer, place)
    part = Dense(block, layer.activation.name, layer.use_bias, layer.initializer)
    if place.block != WHOLE:
        return Gathered(part, place.exchange, place.block), block
    return part if place.is_first or place.sums else Spread(part, place.exchange), block


def _output(layer: Layer, place: Place) -> Placed:
    """The layer whose outputs the loss takes, whole on every rank."""
    assert isinstance(layer, Dense)
    if place.block == WHOLE:
        return layer, WHOLE
    return Summed(layer, place.exchange, place.block), WHOLE


def _response(layer: LocalResponseNormalization, place: Place) -> Placed:
    if place.block == WHOLE:
        return layer, WHOLE
    if layer.groups % place.exchange.ranks == 0:
        groups = layer.groups // place.exchange.ranks
        own = LocalResponseNormalization(layer.k, layer.n, layer.alpha, layer.beta, groups)
        return own, place.block
    if layer.groups > 1:
        raise _refusal(
            layer,
            place,
            f"one group, or a number that {place.exchange.ranks} divides",
            "change groups",
        )
    if place.block < layer.n // 2:
        raise _refusal(
            layer,
            place,
            f"at least {layer.n // 2} channels on each rank, which its neighbours read of it",
            "take more filters before it",
        )
    return Bordered(layer, place.exchange), place.block


def _groups(layer: GroupNormalization, place: Place) -> Placed:
    if place.block == WHOLE:
        return layer, WHOLE
    groups = _share(layer.groups, "groups", layer, place)
    return GroupNormalization(groups, layer.activation, layer.epsilon), place.block


def _dropout(layer: Dropout, place: Place) -> Placed:
    if place.block == WHOLE:
        return layer, WHOLE
    return PartDropout(layer.rate, place.exchange, place.block), place.block


def _residual(layer: Residual, place: Place) -> Placed:
    around = layer.shortcut.layers
    main, block = _sequence(layer.layers[: len(layer.layers) - len(around)], place)
    shortcut, beside = _sequence(around, place)
    if block != beside:
        raise _refusal(
            layer,
            place,
            "two ways whose outputs are both split over the ranks",
            "begin with a convolution before it, or give the shortcut one",
        )
    return Residual(main, layer.activation.name, shortcut), block


RULES: dict[type[Layer], Callable[..., Placed]] = {
    Convolution: _convolution,
    Dense: _dense,
    Residual: _residual,
    LocalResponseNormalization: _response,
    GroupNormalization: _groups,
    Dropout: _dropout,
    **dict.fromkeys(
        (
            BatchNormalization,
            DepthwiseConvolution,
            MaxPooling,
            AveragePooling,
            GlobalAveragePooling,
            Flatten,
            Scaling,
            Softmax,
        ),
        _alike,
    ),
}


def _share(number: int, of: str, layer: Layer, place: Place) -> int:
    """Return each rank's share of a number of filters, units or groups; refuse one that the ranks
    do not divide.
    """
    share, rest = divmod(number, place.exchange.ranks)
    if rest or not share:
        raise _refusal(
            layer,
            place,
            f"a number of {of} that {place.exchange.ranks} divides",
            f"change the {of}",
        )
    return share


def _refusal(layer: Layer, place: Place, expected: str, action: str) -> EnsyncError:
    return EnsyncError(
        f"parallel.model = {place.exchange.ranks} with layer {place.number}, {layer.describe()}",
        expected,
        f"{action}, or change parallel.model",
    )
