"""Settings that can have no effect in a job: what each depends on, once.

They are refused where they are given, and named where an override took their effect. Only other
settings count: not the ranks, not the dataset, not whether a run comes to a setting's epoch.
A bound that is not reached (a slice, a norm to clip at) has its effect.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ensync.core.config.communication import ALL, NEVER
from ensync.core.config.compression import COMPRESSIONS
from ensync.core.config.losses import LOSSES
from ensync.core.config.network import NETWORKS, networks_with
from ensync.core.config.optimizers import OPTIMIZERS
from ensync.core.config.schedules import SCHEDULES
from ensync.core.config.schema import Job
from ensync.core.config.strategies import STRATEGIES
from ensync.core.config.tables import Spec, having
from ensync.core.errors import EnsyncError

# Changes of images beside mirroring.
MOVES = (
    *("random_crop", "crop", "shift", "rotation", "cutout", "erasing"),
    *("colour_noise", "rand_augment", "mixup", "cutmix"),
)
LAST = "activation of the last of network.layers"


@dataclass(frozen=True)
class Dependence:
    """Settings that have an effect only while `effective`, which depends on the settings `on`.

    wanted: that state, in words.
    """

    settings: tuple[str, ...]
    on: tuple[str, ...]
    effective: Callable[[Job], bool]
    wanted: str
    refused: bool = True  # not where a verb beside `train` uses them all the same


def _hidden_matters(job: Job, *convolutional: str) -> bool:
    """Whether there are hidden layers, or others that the setting is for."""
    name = job.network.name
    return job.network.hidden != [] or not (
        name in convolutional or (name in NETWORKS and NETWORKS[name].is_perceptron)
    )


def _moves(job: Job) -> bool:
    """Whether images are changed otherwise than by mirroring."""
    a = job.augmentation
    return any(getattr(a, change) for change in MOVES)


def _depends_on_name(name: str, table: Mapping[str, Spec]) -> Iterator[Dependence]:
    """Yield for each setting that only some rows of a table have, which these are.

    name: of the setting that chooses the row, such as "optimizer.name".
    """
    section, key = name.split(".")

    def effective(rows: Sequence[str]) -> Callable[[Job], bool]:
        return lambda job: not rows_of(job).isdisjoint(rows)

    def rows_of(job: Job) -> set[str]:
        if section == "optimizer":
            return {each.name for each in job.optimizer.of_groups}
        return {getattr(getattr(job, section), key)}

    for setting in dict.fromkeys(setting for spec in table.values() for setting in spec.settings):
        rows = having(table, setting)
        wanted = f"{name} = " + " or ".join(map(repr, rows))
        yield Dependence((f"{section}.{setting}",), (name,), effective(rows), wanted)


DEPENDENCES = (
    *_depends_on_name("training.loss", LOSSES),
    Dependence(
        (LAST,),
        ("training.loss",),
        lambda job: not LOSSES[job.training.loss].of_logits,
        "none with 'cross_entropy', which takes the softmax of the sums",
    ),
    Dependence(
        (LAST,),
        ("network.output_activation",),
        lambda job: job.network.output_activation == "auto",
        "one of the two",
    ),
    Dependence(
        ("training.epochs",),
        ("training.max_steps",),
        lambda job: not job.training.max_steps,
        "training.max_steps = 0",
    ),
    Dependence(
        ("training.virtual_shards",),
        ("training.deterministic",),
        lambda job: job.training.deterministic,
        "training.deterministic = true",
    ),
    Dependence(
        ("network.batch_norm",),
        ("network.name",),
        lambda job: job.network.has("batch_normalization"),
        "a network with batch normalisation: "
        + ", ".join(networks_with("batch_normalization"))
        + " or such layers",
    ),
    Dependence(
        ("evaluation.exit_threshold", "evaluation.exit_confidence"),
        ("network.name",),
        lambda job: job.network.has("exits"),
        "a network with exits, which [[network.layers]] of kind 'exit' are",
    ),
    Dependence(
        ("network.new_output",),
        ("network.weights",),
        lambda job: bool(job.network.weights),
        "a file network.weights",
    ),
    Dependence(
        ("network.initializer", "network.output_initializer"),
        ("network.weights", "network.new_output"),
        lambda job: job.network.new_output or not job.network.weights,
        "weights that are drawn",
    ),
    Dependence(
        ("network.activation",),
        ("network.hidden",),
        _hidden_matters,
        "hidden layers",
    ),
    Dependence(
        ("network.dropout",),
        ("network.hidden",),
        lambda job: _hidden_matters(job, "alexnet"),
        "hidden layers",
    ),
    *_depends_on_name("optimizer.name", OPTIMIZERS),
    Dependence(
        ("optimizer.decoupled",),
        ("optimizer.weight_decay",),
        lambda job: any(each.weight_decay for each in job.optimizer.of_groups),
        "a weight_decay above 0",
    ),
    *_depends_on_name("schedule.name", SCHEDULES),
    Dependence(
        ("schedule.start",),
        ("schedule.peak",),
        lambda job: job.schedule.peak > 0,
        "a peak above 0, before which the factor rises",
    ),
    Dependence(
        ("plateau.factor", "plateau.threshold", "plateau.minimum"),
        ("plateau.patience",),
        lambda job: job.plateau.patience > 0,
        "a plateau.patience above 0",
    ),
    Dependence(
        ("lookahead.share", "lookahead.power"),
        ("lookahead.every_steps",),
        lambda job: job.lookahead.every_steps > 0,
        "lookahead.every_steps above 0",
    ),
    Dependence(
        ("growth.batch", "growth.largest_batch", "growth.learning_rate"),
        ("growth.every_epochs",),
        lambda job: job.growth.every_epochs > 0,
        "growth.every_epochs above 0",
    ),
    Dependence(
        ("growth.every_epochs",),
        ("training.batch",),
        lambda job: job.training.batch != "full",
        "a training.batch that can grow",
    ),
    Dependence(
        ("growth.every_epochs",),
        ("training.batch", "growth.batch", "growth.largest_batch"),
        lambda job: (
            job.training.batch == "full"
            or job.training.batch * job.growth.batch <= job.growth.largest_batch
        ),
        "room for one growth of the batch at least",
    ),
    Dependence(
        ("growth.every_epochs",),
        ("growth.batch", "growth.learning_rate"),
        lambda job: job.growth.batch > 1 or job.growth.learning_rate != 1,
        "one of them above 1",
    ),
    Dependence(
        ("communication.outer_learning_rate", "communication.outer_momentum"),
        ("communication.every",),
        lambda job: job.communication.every != NEVER,
        "meetings, so another communication.every than 'never'",
    ),
    Dependence(
        (
            "communication.start",
            "communication.start_accuracy",
            "communication.estimate_statistics",
        ),
        ("communication.every", "communication.partners"),
        lambda job: job.communication.is_local,
        "communication.every above 1 or 'never', or communication.partners other than 'all'",
    ),
    Dependence(
        ("communication.estimate_statistics",),
        ("network.name",),
        lambda job: job.network.has("batch_normalization"),
        "a network with batch normalisation",
    ),
    Dependence(
        ("communication.average_optimizer",),
        ("communication.every",),
        lambda job: job.communication.is_local and job.communication.every != NEVER,
        "communication.every above 1",
    ),
    *_depends_on_name("communication.compression", COMPRESSIONS),
    Dependence(
        ("communication.growth",),
        ("communication.every",),
        lambda job: job.communication.every not in (1, NEVER),
        "communication.every above 1, the shortest interval",
    ),
    Dependence(
        ("communication.partners",),
        ("communication.every",),
        lambda job: job.communication.every != NEVER,
        "meetings, so another communication.every than 'never'",
    ),
    Dependence(
        (
            "communication.outer_learning_rate",
            "communication.outer_momentum",
            "communication.average_optimizer",
            "communication.growth",
        ),
        ("communication.partners",),
        lambda job: job.communication.partners == ALL,
        "meetings of all ranks, so communication.partners = 'all'",
    ),
    Dependence(
        ("communication.overlap", "communication.bucket_megabytes"),
        (
            "communication.every",
            "communication.compression",
            "communication.server",
            "training.deterministic",
        ),
        lambda job: job.communication.sums_in_steps and not job.training.deterministic,
        "whole gradients that are summed in every step, in any order",
    ),
    Dependence(
        ("communication.bucket_megabytes",),
        ("communication.overlap",),
        lambda job: job.communication.overlap is not False,
        "communication.overlap = true or 'auto'",
    ),
    Dependence(
        ("communication.compression",),
        ("communication.every", "communication.partners", "communication.start"),
        lambda job: job.communication.sums,
        "sums, so ranks that meet all others, or communication.start above 0",
    ),
    Dependence(
        ("communication.max_staleness", "communication.staleness_weight"),
        ("communication.server",),
        lambda job: job.communication.is_served,
        "communication.server = 'seeded' or 'arrival'",
    ),
    Dependence(
        ("communication.staleness_weight",),
        ("communication.max_staleness",),
        lambda job: job.communication.max_staleness > 0,
        "a communication.max_staleness above 0",
    ),
    Dependence(
        ("communication.shares",),
        ("training.strategy", "ensemble.members", "ensemble.start"),
        lambda job: (
            not STRATEGIES[job.training.strategy].ensemble
            or job.ensemble.members > 0
            or job.ensemble.start == "synchronous"
        ),
        "a network that several ranks train, since members have their rows by ensemble.data, "
        "however fast their ranks are",
    ),
    Dependence(
        ("communication.shares",),
        ("training.batch", "growth.every_epochs"),
        lambda job: job.training.batch != 1 or job.growth.every_epochs > 0,
        "a training.batch of several images",
    ),
    Dependence(
        ("augmentation.epochs",),
        tuple(f"augmentation.{change}" for change in MOVES),
        _moves,
        "changes that end, beside flip, which does not",
    ),
    Dependence(
        ("augmentation.rand_augment_magnitude",),
        ("augmentation.rand_augment",),
        lambda job: job.augmentation.rand_augment > 0,
        "an augmentation.rand_augment above 0",
    ),
    Dependence(
        ("augmentation.crop_edge",),
        ("augmentation.crop",),
        lambda job: job.augmentation.crop > 0,
        "an augmentation.crop above 0",
    ),
    Dependence(
        ("augmentation.mixup", "augmentation.cutmix"),
        ("training.batch", "growth.every_epochs"),
        lambda job: job.training.batch != 1 or job.growth.every_epochs > 0,
        "a training.batch of several images",
    ),
    Dependence(
        ("evaluation.augmentation",),
        ("augmentation.random_crop",),
        lambda job: job.evaluation.augmentation != "ten_views" or job.augmentation.random_crop > 0,
        "an augmentation.random_crop above 0, smaller than the images",
    ),
    Dependence(
        ("parallel.convolutions",),
        ("parallel.model",),
        lambda job: job.parallel.model > 1,
        "parallel.model above 1",
    ),
    Dependence(
        ("parallel.micro_batches",),
        ("parallel.stages",),
        lambda job: job.parallel.stages > 1,
        "parallel.stages above 1",
    ),
    Dependence(
        ("ensemble.skew",),
        ("ensemble.data",),
        lambda job: job.ensemble.data == "label_skew",
        "ensemble.data = 'label_skew'",
    ),
    Dependence(
        ("ensemble.synchronous_epochs",),
        ("ensemble.start",),
        lambda job: job.ensemble.start == "synchronous",
        "ensemble.start = 'synchronous'",
    ),
    Dependence(
        (
            "ensemble.members",
            "ensemble.data",
            "ensemble.skew",
            "ensemble.start",
            "ensemble.synchronous_epochs",
            "fusion.method",
        ),
        ("training.strategy",),
        lambda job: STRATEGIES[job.training.strategy].ensemble,
        "training.strategy = 'ensemble'",
        refused=False,
    ),  # `ensync compare` trains an ensemble too
)


def _value(job: Job, name: str) -> Any:
    """Return a setting's value, None where it is the default."""
    if name == LAST:
        last = job.network.layers[-1] if job.network.layers else None
        activation = getattr(last, "activation", "identity")
        return activation if activation != "identity" else None
    section, key = name.split(".")
    value = getattr(getattr(job, section), key)
    return value if value != type(getattr(job, section)).model_fields[key].default else None


def _idle(job: Job) -> Iterator[tuple[str, str, Dependence]]:
    """Yield the settings without effect, as "name = value with what it depends on"."""
    for rule in DEPENDENCES:
        for name in rule.settings:
            if (value := _value(job, name)) is not None and not rule.effective(job):
                given = ", ".join(
                    f"{other} = {getattr(getattr(job, other.split('.')[0]), other.split('.')[1])!r}"
                    for other in rule.on
                )
                yield name, f"{name} = {value!r}|{given}", rule


def without_effect(job: Job) -> list[str]:
    """Return a line for each setting that has no effect in this job."""
    return [text.replace("|", " has no effect with ") for _, text, _ in _idle(job)]


def refuse_without_effect(
    job: Job, overrides: Sequence[str], origin: str, only_overrides: bool = False
) -> None:
    """Refuse a setting that can have no effect, given in the file or an override (or only there).

    overrides: "section.key=value". A setting of the file whose effect an override takes away is not
    refused: a sweep over optimisers may keep the momentum of one of them.
    """
    changed = {text.partition("=")[0].strip() for text in overrides}
    for name, text, rule in _idle(job):
        excused = name not in changed and (only_overrides or changed.intersection(rule.on))
        if rule.refused and not excused:
            raise EnsyncError(
                f"{text.replace('|', ' with ')} in {origin}, where it has no effect",
                rule.wanted,
                f"remove it or change {' or '.join(rule.on)}",
            )
