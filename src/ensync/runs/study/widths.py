"""Networks with more or fewer parameters: all widths but that of the outputs times one factor."""

import functools
from collections.abc import Callable, Sequence
from fractions import Fraction

from ensync.core.config.layers import (
    WHITENING,
    CoarseToFineLayer,
    ConvolutionLayer,
    DenseLayer,
    ExitLayer,
    LayerSection,
    ParallelLayer,
    RecurrentLayer,
    ResidualLayer,
    SeparableLayer,
)
from ensync.core.config.network import NETWORKS, NetworkSettings
from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.nn.memory import counted
from ensync.nn.models import zoo
from ensync.runs.study.facts import Facts

Scale = Callable[[int], int]  # a width to another
HALVINGS = 40  # of the range of factors, after which its ends are the same widths
LARGEST = 1024.0  # factor on the widths
UNSCALED = (
    "network.name = '{}' has no setting for the widths of its layers; mlp, airbench, alexnet and "
    "[[network.layers]] have"
)


def parameters(job: Job, facts: Facts) -> int:
    """Return how many parameters a network of the job has."""
    plain = job.training.model_copy(update={"precision": "float32"})
    with counted():
        built = zoo.build(job.model_copy(update={"training": plain}), facts.shape, facts.classes, 1)
    return len(built.parameters)


def unscalable(settings: NetworkSettings) -> str:
    """Return why a network cannot be made wider, "" where it can."""
    if settings.layers is not None:
        if settings == scaled(settings, 2.0):
            return "[[network.layers]] has no width beside that of the outputs"
        return ""
    spec = NETWORKS[settings.name]
    if spec.is_perceptron:
        given = spec.hidden if settings.hidden is None else settings.hidden
        return "" if given else "network.hidden = [] leaves no layer to be made wider"
    return "" if spec.filters or spec.width else UNSCALED.format(settings.name)


def scaled(settings: NetworkSettings, factor: float) -> NetworkSettings:
    """Return a network whose widths are times a factor, rounded, at least 1; those of the outputs
    and of whitening filters stay.
    """

    def scale(width: int) -> int:
        return max(1, round(width * factor))

    if settings.layers is not None:
        return settings.model_copy(update={"layers": _layers(settings.layers, scale, last=True)})
    spec = NETWORKS[settings.name]
    if spec.width:
        return settings.model_copy(update={"width": settings.width * factor})
    key = "filters" if spec.filters else "hidden"
    given = getattr(settings, key)
    widths = getattr(spec, key) if given is None else given
    return settings.model_copy(update={key: [scale(width) for width in widths]})


def _layers(layers: Sequence[LayerSection], scale: Scale, last: bool = False) -> list[LayerSection]:
    """Return layers of other widths; last: whether the last dense one makes the outputs."""
    dense = [place for place, each in enumerate(layers) if isinstance(each, DenseLayer)]
    kept = dense[-1] if last and dense else -1
    return [each if place == kept else _layer(each, scale) for place, each in enumerate(layers)]


def _layer(layer: LayerSection, scale: Scale) -> LayerSection:
    changed: dict[str, object] = {}
    if isinstance(layer, DenseLayer | RecurrentLayer) and layer.units is not None:
        changed = {"units": scale(layer.units)}
    elif isinstance(layer, SeparableLayer) or (
        isinstance(layer, ConvolutionLayer) and layer.initializer != WHITENING
    ):
        changed = {"filters": scale(layer.filters)}
    elif isinstance(layer, ResidualLayer):
        changed = {
            "layers": _layers(layer.layers, scale),
            "shortcut": _layers(layer.shortcut, scale),
        }
    elif isinstance(layer, CoarseToFineLayer):
        changed = {"coarse": _layers(layer.coarse, scale), "fine": _layers(layer.fine, scale)}
    elif isinstance(layer, ExitLayer):
        changed = {"layers": _layers(layer.layers, scale, last=True)}
    elif isinstance(layer, ParallelLayer):
        changed = {"branches": [_layers(branch, scale) for branch in layer.branches]}
    return layer.model_copy(update=changed)


def with_parameters(job: Job, facts: Facts, share: Fraction) -> Job | str:
    """Return the job with a network of this share of its parameters, as near as widths allow, or
    why there is none.
    """
    if why := unscalable(job.network):
        return why
    if share == 1:
        return job
    try:
        factor = _factor(job.model_dump_json(), facts, share)
    except EnsyncError as error:
        return f"a network of {share} of the parameters cannot be built ({error.given})"
    if factor is None:
        return f"no width gives a network {share} of the parameters"
    return job.model_copy(update={"network": scaled(job.network, factor)})


@functools.lru_cache(maxsize=64)
def _factor(job: str, facts: Facts, share: Fraction) -> float | None:
    """Return the factor on the widths whose network has nearest to a share of the parameters;
    None where none comes within a factor of 2.

    Parameters grow with the factor, so that halving its range finds it.
    """
    given = Job.model_validate_json(job)

    @functools.cache
    def count(factor: float) -> int:
        return parameters(
            given.model_copy(update={"network": scaled(given.network, factor)}), facts
        )

    wanted = share * count(1.0)
    low, high = (0.0, 1.0) if share < 1 else (1.0, 2.0)
    while count(high) < wanted and high < LARGEST:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        if scaled(given.network, low) == scaled(given.network, high):
            break
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) < wanted else (low, middle)
    best = min((low, high), key=lambda factor: abs(count(factor) - wanted))
    return best if wanted / 2 <= count(best) <= 2 * wanted else None
