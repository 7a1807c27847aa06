"""What the command line says of how to run a job."""

import json
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """Options of the verbs that train.

    overrides: "SECTION.KEY=VALUE" each; resume: continue what exists; overwrite: delete it first;
    verbose: every rank prints, not only rank 0.
    """

    overrides: tuple[str, ...] = ()
    resume: bool = False
    overwrite: bool = False
    verbose: bool = False


@dataclass(frozen=True)
class StudyOptions:
    """Options of `ensync compare` that belong to a study.

    Those named as settings of the section [study] stand for them, as they are written there or with
    commas between the parts of a list. over: in place of the contestants that the job names; pack:
    cells run beside each other; cell: only those of one number; list_cells: name them; gather:
    train nothing.
    """

    seeds: str | None = None
    ranks: str | None = None
    budget: str | None = None
    amount: str | None = None
    contestants: str | None = None
    over: str | None = None
    trials: str | None = None
    pack: bool = False
    cell: int | None = None
    list_cells: bool = False
    gather: bool = False

    @property
    def overrides(self) -> tuple[str, ...]:
        """The settings, as `--set` takes them."""
        names = ("seeds", "budget", "amount", "trials", "over")
        given = {name: getattr(self, name) for name in names}
        contestants = "" if self.over and self.contestants is None else self.contestants
        listed = {
            "ranks": _listed(self.ranks, str),
            "contestants": _listed(contestants, json.dumps),
        }
        return tuple(
            f"study.{name}={value}" for name, value in (given | listed).items() if value is not None
        )

    @property
    def actions(self) -> list[str]:
        """The options given that only a study has, and that are no settings."""
        wanted = {
            "--pack": self.pack,
            "--cell": self.cell is not None,
            "--list-cells": self.list_cells,
            "--gather": self.gather,
        }
        return [name for name, given in wanted.items() if given]


def _listed(text: str | None, shown: Callable[[str], str]) -> str | None:
    """Return "a,b" as a list of TOML."""
    if text is None:
        return None
    return f"[{', '.join(shown(part.strip()) for part in text.split(',') if part.strip())}]"


@dataclass(frozen=True)
class Request:
    """What `ensync submit` asks Slurm for. time: as sbatch takes it; partition: "" for the default
    one.
    """

    nodes: int
    ranks_per_node: int
    cores_per_rank: int
    time: str
    partition: str = ""
