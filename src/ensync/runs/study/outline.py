"""A study in words, before anything is trained: who trains for how long on how many ranks."""

from ensync.core.config.schema import Job
from ensync.core.config.study import BUDGETS, TIMED, Study
from ensync.report import text
from ensync.runs.study.cells import Facts, Known, Plan
from ensync.runs.study.contestants import networks
from ensync.runs.study.planning import plan
from ensync.runs.study.widths import parameters

SHOWN_FOR = 2  # ranks, where the study takes as many as are launched
HEADS = ["contestant", "ranks", "networks", "each trains for", "parameters of each"]


def outline(job: Job, study: Study, facts: Facts) -> list[str]:
    """Return lines about the study of a job. Errors: EnsyncError as of `plan`."""
    counts = study.ranks or [SHOWN_FOR]
    found = plan(job, max(counts), facts, Known())
    rows = [
        [study.label(name), str(ranks), *_sizes(each, ranks, study, facts)]
        for (name, ranks), each in found.jobs.items()
    ]
    return [
        "",
        _title(study, found),
        f"  {study.budget}: {BUDGETS[study.budget].help}, with "
        f"E = {text.plural(job.training.epochs, 'epoch')} and D = {facts.train:,} training rows"
        + (f"; amount = {study.amount:g}" if study.amount else ""),
        *text.table(HEADS, rows, left=(0,)),
        *[f"  left out: {line}" for line in found.left_out],
    ]


def _title(study: Study, found: Plan) -> str:
    runs = len(found.cells) + len(found.pending)
    counts = ", ".join(map(str, study.ranks))
    ranks = (
        f"{counts} rank{'s' * (study.ranks != [1])}"
        if counts
        else f"as many ranks as are launched (here {SHOWN_FOR})"
    )
    trials = f", {study.trials} learning rates tried for each" if study.trials > 1 else ""
    return (
        f"study of {text.plural(runs, 'run')}: {text.plural(study.seeds, 'seed')} of each "
        f"contestant on {ranks}{trials}"
    )


def _sizes(job: Job, ranks: int, study: Study, facts: Facts) -> list[str]:
    """Return the networks, their length and their parameters."""
    training = job.training
    if study.budget in TIMED:
        length = "as its pace allows"
    elif training.max_steps:
        length = text.plural(training.max_steps, "step")
    else:
        length = text.plural(training.epochs, "epoch")
    return [str(networks(job, ranks)), length, f"{parameters(job, facts):,}"]
