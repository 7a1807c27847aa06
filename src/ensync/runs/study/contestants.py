"""The contestants of a study: what each changes of the job, or why it cannot work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from ensync.core.config.communication import Communication
from ensync.core.config.effects import refuse_without_effect
from ensync.core.config.ensemble import Ensemble, Fusion
from ensync.core.config.job import job_from_dict, override, plain_settings, without_study
from ensync.core.config.schema import Job
from ensync.core.config.study import AS_GIVEN, TIMED, Own, Study
from ensync.core.errors import EnsyncError, plural
from ensync.core.fusion import FUSIONS
from ensync.runs.study.facts import Facts
from ensync.runs.study.widths import with_parameters
from ensync.strategies import strategy_of

# What a study gives each of its runs.
FIXED = ("data.path", "training.seed", "training.epochs", "training.max_steps")
FIXED_SECTIONS = ("output", "study")
STEPS_APART = 16  # of local_sgd, where the job says nothing
SHARE_OF_START = 4  # one of so many epochs, or seconds, is of the one network of shared_start


@dataclass(frozen=True)
class Asked:
    """What a contestant is made of: the job, its ranks, the dataset, the name of the budget."""

    job: Job
    ranks: int
    facts: Facts
    budget: str


@dataclass(frozen=True)
class Impossible:
    """Why a contestant is left out."""

    why: str


def updated(job: Job, **sections: Mapping[str, object]) -> Job:
    """Return the job with other settings, given by section; they are not checked."""
    return job.model_copy(
        update={
            name: getattr(job, name).model_copy(update=values) for name, values in sections.items()
        }
    )


def networks(job: Job, ranks: int) -> int:
    """Return how many networks a job trains on so many ranks."""
    return strategy_of(job).members(ranks)


def most_together(job: Job, ranks: int) -> int:
    """Return how many of so many ranks train one network at any time."""
    count = networks(job, ranks)
    return ranks if count > 1 and job.ensemble.start == "synchronous" else -(-ranks // count)


def contestant(job: Job, name: str, ranks: int, facts: Facts) -> Job | Impossible:
    """Return the job of a contestant on so many ranks, without its length, or why there is none.

    Errors: EnsyncError where a contestant of one's own has settings that cannot be.
    """
    study = job.study or Study()
    own = study.made(name)
    base = own.base if own else name
    found = CHANGES[base](Asked(without_study(job), ranks, facts, study.budget))
    if isinstance(found, Impossible):
        return found
    if own:
        found = _with_own(found, f"study.own.{name}" if name in study.own else "study.over", own)
    if why := _refusal(found, ranks, facts):
        return Impossible(why)
    if study.budget == "inference" and (count := networks(found, ranks)) > 1:
        return _sized(found, facts, Fraction(1, count))
    return found


def _sized(job: Job, facts: Facts, share: Fraction) -> Job | Impossible:
    """Return the job with a network of a share of its parameters."""
    found = with_parameters(job, facts, share)
    return Impossible(found) if isinstance(found, str) else found


def _with_own(job: Job, origin: str, own: Own) -> Job:
    """Return the job with the settings of a contestant of one's own.

    origin: the setting that has them.
    """
    for text in own.set:
        key = text.partition("=")[0].strip()
        if key in FIXED or key.partition(".")[0] in FIXED_SECTIONS:
            raise EnsyncError(
                f"{key} in {origin}, which the study gives each run",
                "another setting of the training",
                "remove it there, or change it in the job for all contestants",
            )
    try:
        found = job_from_dict(override({**plain_settings(job)}, own.set), origin)
    except EnsyncError as error:
        where = origin if origin == "study.over" else f"the 'set' of {origin}"
        raise EnsyncError(error.given, error.expected, f"correct {where}") from None
    refuse_without_effect(found, own.set, origin, only_overrides=True)
    return found


def _refusal(job: Job, ranks: int, facts: Facts) -> str:
    """Return why a job cannot be trained on so many ranks, "" where it can."""
    if ranks % (each := job.parallel.ranks):
        return f"{job.parallel.setting} = {each} does not divide {plural(ranks, 'rank')}"
    count, training = networks(job, ranks), job.training
    if training.strategy == "ensemble":
        if count < 2:
            return "one network is no ensemble"
        if job.ensemble.data in ("shards", "label_skew") and count > facts.train:
            return f"{count} members cannot share {facts.train:,} training rows"
    together = most_together(job, ranks)
    if training.deterministic and together > training.virtual_shards:
        return (
            f"{together} ranks for one network are more than the {training.virtual_shards} "
            "training.virtual_shards of a deterministic run"
        )
    return ""


def _single(job: Job) -> Job:
    """Return the job of one network, without settings that only an ensemble has."""
    job = _talking(updated(job, training={"strategy": "synchronous"}))
    return job.model_copy(update={"ensemble": Ensemble(), "fusion": Fusion()})


def _talking(job: Job) -> Job:
    """Return the job with gradients that are summed in every step."""
    return job.model_copy(update={"communication": Communication()})


def _local(asked: Asked) -> Job | Impossible:
    given = asked.job.communication
    meetings = given if given.is_local else Communication(every=STEPS_APART)
    return _checked(_single(asked.job).model_copy(update={"communication": meetings}))


def _checked(job: Job) -> Job | Impossible:
    """Return a job, or why its settings do not go together."""
    try:
        return job_from_dict({**plain_settings(job)})
    except EnsyncError as error:
        return Impossible(error.given)


def _served(asked: Asked) -> Job | Impossible:
    if asked.ranks == 1:
        return Impossible("a server of parameters serves other ranks")
    given = asked.job.communication
    server = given if given.is_served else Communication(server="seeded")
    return _checked(_single(asked.job).model_copy(update={"communication": server}))


def _one(asked: Asked) -> Job | Impossible:
    return _single(asked.job)


def _as_given(asked: Asked) -> Job | Impossible:
    return asked.job


def _grown(asked: Asked) -> Job | Impossible:
    """The batch and every learning rate times the ranks (Goyal et al. 2017, arXiv 1706.02677)."""
    job, ranks, rows = asked.job, asked.ranks, asked.facts.train
    batch = job.training.batch
    if batch == "full":
        return Impossible("training.batch = 'full' cannot grow")
    if batch * ranks > rows:
        return Impossible(f"a batch of {batch:,} x {ranks} is more than the {rows:,} training rows")
    job = updated(_single(job), training={"batch": batch * ranks})
    if job.growth.every_epochs:
        job = updated(job, growth={"largest_batch": job.growth.largest_batch * ranks})
    return with_rate(job, ranks)


def with_rate(job: Job, factor: float) -> Job:
    """Return the job with every learning rate multiplied."""
    if factor == 1:
        return job
    groups = [
        each.model_copy(update={"learning_rate": each.learning_rate * factor})
        if each.learning_rate is not None
        else each
        for each in job.optimizer.groups
    ]
    rate = job.optimizer.learning_rate * factor
    return updated(job, optimizer={"learning_rate": rate, "groups": groups})


def _members(data: str) -> Callable[[Asked], Job | Impossible]:
    """Return what makes an ensemble whose members have these rows."""

    def change(asked: Asked) -> Job | Impossible:
        job = asked.job
        start = "own" if job.ensemble.start == "synchronous" else job.ensemble.start
        plain = {"start": start, "synchronous_epochs": Ensemble().synchronous_epochs}
        changed = updated(
            _talking(job),
            training={"strategy": "ensemble"},
            ensemble={"data": data, "skew": Ensemble().skew, **plain},
        )
        of_parameters = FUSIONS[job.fusion.method].of_parameters
        return (
            changed.model_copy(update={"fusion": Fusion()})
            if of_parameters and start == "own"
            else changed
        )

    return change


def _shared_start(asked: Asked) -> Job | Impossible:
    job, epochs = asked.job, asked.job.training.epochs
    first = max(1, (epochs + SHARE_OF_START // 2) // SHARE_OF_START)
    if first >= epochs and asked.budget not in TIMED:
        return Impossible("training.epochs = 1 leaves nothing after a synchronous epoch")
    return updated(
        _talking(job),
        training={"strategy": "ensemble"},
        ensemble={
            "data": "shards",
            "skew": Ensemble().skew,
            "start": "synchronous",
            "synchronous_epochs": first,
        },
        fusion={"method": "weight_averaging"},
    )


def _larger(asked: Asked) -> Job | Impossible:
    if asked.budget == "inference":
        return Impossible("it costs more to use than one network, which study.budget excludes")
    count = asked.job.ensemble.members or asked.ranks
    return _sized(_single(asked.job), asked.facts, Fraction(count))


CHANGES: Mapping[str, Callable[[Asked], Job | Impossible]] = {
    "one_rank": _one,
    "synchronous": _one,
    "synchronous_grown": _grown,
    "ensemble_shards": _members("shards"),
    "ensemble_full": _members("full"),
    "ensemble_bootstrap": _members("bootstrap"),
    "shared_start": _shared_start,
    "larger_network": _larger,
    "local_sgd": _local,
    "parameter_server": _served,
    AS_GIVEN: _as_given,
}
