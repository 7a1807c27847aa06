"""What the command line says of how to run a job."""

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
class Request:
    """What `ensync submit` asks Slurm for. time: as sbatch takes it; partition: "" for the default
    one.
    """

    nodes: int
    ranks_per_node: int
    cores_per_rank: int
    time: str
    partition: str = ""
