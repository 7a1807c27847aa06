"""The budgets and the contestants of a study, each described once, and its section of a job file.
What contestants change is in runs.study.contestants, how long they train in runs.study.budgets.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ensync.core.config.layers import Positive, Section
from ensync.core.config.over import Over, over_of
from ensync.core.errors import EnsyncError, nearest


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """What contestants of a study have alike.

    help: the budget, in one sentence, with E = training.epochs, D = the training rows and
    N = the networks of a contestant; amount: what study.amount is then, "" where it is without
    effect.
    """

    help: str
    amount: str = ""


BUDGETS = {
    "samples": BudgetSpec("all networks of a contestant together train on E * D samples"),
    "samples_per_network": BudgetSpec("each network of a contestant trains on E * D samples"),
    "core_seconds": BudgetSpec(
        "each contestant trains for `amount` seconds of a core, summed over its cores, which a "
        "short calibration turns into steps beforehand",
        "seconds of one core",
    ),
    "wall_clock": BudgetSpec(
        "each contestant trains for `amount` seconds, which a short calibration turns into steps "
        "beforehand",
        "seconds",
    ),
    "target": BudgetSpec(
        "as samples, and what counts is when the fused validation accuracy reaches `amount`",
        "a validation accuracy, above 0 and below 1",
    ),
    "inference": BudgetSpec(
        "as samples, and the networks of a contestant have together as many parameters as one of "
        "the job, so that all cost the same to use"
    ),
}
TIMED = ("core_seconds", "wall_clock")


@dataclass(frozen=True, slots=True)
class ContestantSpec:
    """A contestant that every job can have.

    label: its name on a page; help: what it is.
    """

    label: str
    help: str


CONTESTANTS = {
    "one_rank": ContestantSpec("one rank", "one network on one rank"),
    "synchronous": ContestantSpec(
        "synchronous", "one network on all ranks, which share each batch of training.batch"
    ),
    "synchronous_grown": ContestantSpec(
        "synchronous, grown batch",
        "the same with batch and learning rate times the ranks (the linear rule, Goyal et al. "
        "2017)",
    ),
    "ensemble_shards": ContestantSpec(
        "ensemble on shards", "a network a rank, each on its own share of the training rows"
    ),
    "ensemble_full": ContestantSpec(
        "ensemble on all data", "a network a rank, each on all training rows"
    ),
    "ensemble_bootstrap": ContestantSpec(
        "ensemble, bootstrap",
        "a network a rank, each on as many rows as there are, drawn with replacement",
    ),
    "shared_start": ContestantSpec(
        "shared start, averaged",
        "one synchronous network for a quarter of the training, at least an epoch; from it a "
        "network a rank on shards, and the mean of their weights",
    ),
    "larger_network": ContestantSpec(
        "one larger network",
        "one synchronous network, wider, with as many parameters as the ensembles have together "
        "(Abe et al. 2022)",
    ),
    "local_sgd": ContestantSpec(
        "local SGD",
        "one network on all ranks, whose replicas meet as [communication] says, or every 16 steps",
    ),
    "parameter_server": ContestantSpec(
        "parameter server",
        "one network on rank 0, to which all push gradients of networks up to 4 steps old, or as "
        "[communication] says",
    ),
}
AS_GIVEN = "job"  # what contestants of a study's own may differ from, too: the job as it is
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # a directory's

if TYPE_CHECKING:
    BudgetName = str
    BaseName = str
else:
    BudgetName = Literal[tuple(BUDGETS)]
    BaseName = Literal[(*CONTESTANTS, AS_GIVEN)]


class Own(Section):
    """A contestant of one's own: another one with other settings."""

    base: BaseName = Field(
        description=f"the contestant that it differs from, or '{AS_GIVEN}': the job as it is"
    )
    set: Annotated[list[str], Field(min_length=1)] = Field(
        description="its other settings, each 'section.key=value' as on the command line"
    )
    label: str = Field("", description="its name on the page; left out: its name here")


class Study(Section):
    """What `ensync compare` trains: contestants x seeds x ranks, all with the same budget."""

    seeds: Positive = Field(
        5,
        description="runs of each contestant: with training.seed, training.seed + 1, ...; the same "
        "for every contestant",
    )
    ranks: list[int] = Field(
        [], description="rank counts of the contestants; []: as many as were launched"
    )
    budget: BudgetName = Field(
        "samples",
        description="what is alike, with E = training.epochs, D = training rows; "
        + "; ".join(f"{name}: {spec.help}" for name, spec in BUDGETS.items()),
    )
    amount: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="; ".join(
            f"{name}: {spec.amount}" for name, spec in BUDGETS.items() if spec.amount
        ),
    )
    trials: Annotated[int, Field(ge=1, le=9)] = Field(
        1,
        description="learning rates tried for each contestant and rank count, times 1, 1/2, 2, "
        "1/4, ..., on the first seed; the best by validation accuracy is taken",
    )
    over: str = Field(
        "",
        description="contestants that differ in one setting of the job, each with one of these "
        "values, such as 'communication.every=1,16,never'; `contestants` then come beside them "
        "where they are given",
    )
    contestants: list[str] = Field(
        [
            "one_rank",
            "synchronous",
            "synchronous_grown",
            "ensemble_shards",
            "ensemble_full",
            "shared_start",
        ],
        description="; ".join(f"{name}: {spec.help}" for name, spec in CONTESTANTS.items())
        + "; those of [study.own] come in any case",
    )
    practically_equal: Annotated[float, Field(ge=0)] = Field(
        0.3, description="points of accuracy that make no difference in practice"
    )
    redraw_validation: bool = Field(
        False,
        description="data.validation_seed is the seed of each run, so that each has other "
        "validation images",
    )
    own: dict[str, Own] = Field(
        {}, description="[study.own.NAME]: contestants of one's own, by name"
    )

    @property
    def names(self) -> list[str]:
        """All contestants in order, those of one's own last where the list leaves them out."""
        return list(dict.fromkeys([*self.contestants, *self._values, *self.own]))

    @property
    def axis(self) -> Over | None:
        """The setting whose values are contestants, None where there is none."""
        return over_of(self.over) if self.over else None

    @property
    def _values(self) -> list[str]:
        """The names of contestants that differ in one setting."""
        return list(self.axis.values) if self.axis else []

    def label(self, name: str) -> str:
        """Return the name of a contestant on a page."""
        own = self.made(name)
        return own.label or name if own else CONTESTANTS[name].label

    def made(self, name: str) -> Own | None:
        """Return what a contestant of this study alone is made of, None of one that every job can
        have.
        """
        axis = self.axis
        if axis and name in axis.values:
            return Own(base=AS_GIVEN, set=[axis.override(name)], label=axis.label(name))
        return self.own.get(name)

    @model_validator(mode="before")
    @classmethod
    def _without_contestants(cls, given: object) -> object:
        """Leave the usual contestants out where the values of a setting are contestants."""
        if isinstance(given, dict) and given.get("over") and "contestants" not in given:
            return {**given, "contestants": []}
        return given

    @model_validator(mode="after")
    def _possible(self) -> "Study":
        """Refuse what no study can be."""
        for refused in (
            self._refused_ranks,
            self._refused_amount,
            self._refused_over,
            self._refused_names,
        ):
            if refusal := refused():
                raise ValueError(refusal)
        return self

    def _refused_ranks(self) -> str:
        if any(count < 1 for count in self.ranks) or len(set(self.ranks)) < len(self.ranks):
            return (
                f"study.ranks = {self.ranks}|rank counts of at least 1, each once"
                "|correct it, or leave it out for as many as are launched"
            )
        return ""

    def _refused_amount(self) -> str:
        wanted, given = BUDGETS[self.budget].amount, f"study.budget = '{self.budget}'"
        if not wanted and self.amount:
            having = " or ".join(repr(name) for name, spec in BUDGETS.items() if spec.amount)
            return (
                f"study.amount = {self.amount:g} with {given}, where it has no effect"
                f"|study.budget = {having}|remove it or change study.budget"
            )
        if wanted and (not self.amount or (self.budget == "target" and self.amount >= 1)):
            return f"study.amount = {self.amount:g} with {given}|{wanted}|give study.amount"
        return ""

    def _refused_over(self) -> str:
        try:
            return "" if self.names else self._none()
        except EnsyncError as error:
            return f"{error.given}|{error.expected}|{error.action}"

    def _none(self) -> str:
        return (
            "study.contestants = []|a contestant at least, or study.over"
            "|name some of them, or leave it out for the usual ones"
        )

    def _refused_names(self) -> str:
        others = [*CONTESTANTS, *self._values]
        known = [*others, *self.own]
        for name in self.own:
            if not NAME.fullmatch(name) or name in others:
                what = "that is another contestant" if name in others else "as its name"
                return (
                    f"[study.own.{name}] {what}|a name of letters, digits, '_', '-' and '.', which "
                    "no other contestant has|rename it"
                )
        for name in self.contestants:
            if name not in known:
                return (
                    f"unknown contestant '{name}' in study.contestants{nearest(name, known)}"
                    f"|some of {', '.join(known)}|correct it, or describe it as [study.own.{name}]"
                )
        if len(set(self.contestants)) < len(self.contestants):
            twice = next(x for x in self.contestants if self.contestants.count(x) > 1)
            return f"study.contestants has '{twice}' twice|each once|remove one of the two"
        return ""
