"""What a job, a run or a dataset is, in words. One process, no MPI."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ensync.core.config.effects import without_effect
from ensync.core.config.job import Job, dump_job, job_from_dict, load_job, override
from ensync.core.config.optimizers import Group, Optimizer
from ensync.core.errors import EnsyncError, leads_nowhere, nearest, printable
from ensync.report import text


class Images(NamedTuple):
    """What a network must know of its images: height, width, channels; and classes."""

    shape: tuple[int, int, int]
    classes: int


def describe(
    thing: str, overrides: tuple[str, ...] = (), images: Images | None = None
) -> Iterator[str]:
    """Yield the description of a job file, a run directory, a checkpoint or a dataset.

    images: those that a job is described for, in place of its dataset's.
    Errors: EnsyncError; after the description of a run whose data.path is another dataset, and
    after the list of several runs in a directory.
    """
    from ensync.runs.below import choose

    choice = choose(thing, "describe")
    if choice.lines:
        yield "\n".join(map(printable, choice.lines))
    if choice.refusal:
        raise choice.refusal
    path = Path(choice.path)
    if path.suffix == ".toml":
        job = load_job(path, overrides)
        yield describe_job(job) if images is None else describe_without_data(job, images)
    elif images is not None:
        raise EnsyncError(f"--shape and --classes with {thing}", "a job file", "leave both out")
    elif path.is_dir() or _is_checkpoint(thing):
        yield from describe_run(path, overrides)
    elif overrides:
        raise EnsyncError(
            f"--set {overrides[0]} with {thing}, which has no settings",
            "a job file or a run",
            "leave --set out",
        )
    else:
        yield describe_dataset(thing)


def _is_checkpoint(thing: str) -> bool:
    path = Path(thing)
    if not path.exists():
        beside = [str(p) for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise EnsyncError(
            f"there is no '{thing}'{leads_nowhere(path) or nearest(thing, beside)}",
            "a job file, a run's directory, a checkpoint or a dataset",
            "check the path",
        )
    with open(path, "rb") as file:
        return file.read(6) == b"Ensync"


def describe_dataset(file: str) -> str:
    """Return what a prepared dataset holds."""
    from ensync.storage.dataset import open_dataset

    dataset = open_dataset(file)
    try:
        return dataset.describe()
    finally:
        dataset.close()


def describe_job(job: Job) -> str:
    """Return the layer table of the job's network on its dataset, and every setting."""
    from ensync.storage.dataset import open_dataset

    if not os.path.lexists(job.data.path):
        raise EnsyncError(
            f"{job.data.path} does not exist",
            "the prepared dataset of the job",
            "make it with `ensync data prepare`, correct data.path, or give --shape and --classes",
        )
    dataset = open_dataset(job.data.path)
    try:
        table = [
            *layer_table(job, dataset.shape, dataset.classes),
            *_length(job, dataset.labels("train")),
            *_memory(job, dataset),
            *_study(job, dataset),
        ]
    finally:
        dataset.close()
    return "\n".join([*table, *without_effect(job), "", dump_job(job)])


def describe_without_data(job: Job, images: Images) -> str:
    """Return the layer table of the job's network on such images, and every setting."""
    shape = " x ".join(map(str, images.shape))
    lines = [
        *layer_table(job, images.shape, images.classes),
        f"for images of {shape} in {text.plural(images.classes, 'class', 'classes')}; steps and "
        "memory are told where the dataset is",
        *without_effect(job),
    ]
    return "\n".join([*lines, "", dump_job(job)])


def _length(job: Job, labels: np.ndarray) -> list[str]:
    """Return a line about the steps of a run on one rank, or as many as hold a network."""
    from ensync.runs.length import parts_of
    from ensync.runs.planned import with_epochs
    from ensync.strategies import settled, strategy_of
    from ensync.training.learning_rate import EpochPlan

    ranks = job.parallel.ranks
    job = with_epochs(settled(job, ranks), ranks, labels)
    strategy = strategy_of(job)
    members = strategy.members(ranks)
    rows = len(strategy.rows(labels, members, 0))
    plan = EpochPlan(job, rows, parts_of(strategy, ranks, labels, 0))
    steps = job.training.max_steps or plan.updates(job.training.epochs)
    epochs = f"{float(plan.length):.4g} epoch{'s' * (plan.length != 1)}"
    network = f"each of {members} networks" if members > 1 else "the network"
    return [
        f"{text.plural(steps, 'step')} of {network} {_where(ranks)}: {epochs} of "
        f"{text.plural(rows, 'training row')}"
    ]


def _where(ranks: int) -> str:
    return "on one rank" if ranks == 1 else f"on {ranks} ranks, which hold a network together"


def _study(job: Job, dataset: Any) -> list[str]:
    """Return lines about the study of a job, where it has one."""
    from ensync.runs.study.facts import Facts
    from ensync.runs.study.outline import outline

    if job.study is None:
        return []
    train, validation, test = (dataset.sizes[split] for split in ("train", "validation", "test"))
    return outline(job, job.study, Facts(train, validation, test, dataset.shape, dataset.classes))


def _memory(job: Job, dataset: Any) -> list[str]:
    """Return lines about the memory of a run on one rank, and about what is there."""
    from ensync.runs.memory import having, need_of, shortage

    ranks = job.parallel.ranks
    need, here = need_of(job, dataset, ranks), having()
    lines = [
        f"about {text.size(need.of_node(ranks))} of memory {_where(ranks)} ({need.parts(ranks)}); "
        f"{here.shared.bound} leaves {text.size(here.shared.bytes)} here"
    ]
    refusal = shortage([need], [here] * ranks)
    return [*lines, *([f"too much for one rank here: {refusal.action}"] if refusal else [])]


def layer_table(job: Job, shape: tuple[int, ...], classes: int) -> list[str]:
    """Return lines: each layer with output shape, parameters, arithmetic (multiply-adds of the
    forward pass) and memory of its outputs per sample.
    """
    from ensync.nn.memory import counted
    from ensync.nn.models import zoo

    with counted():
        network = zoo.build(job, shape, classes, 1)
    layers = [("", layer, out) for layer, out in zip(network.layers, network.shapes, strict=True)]
    arithmetic = sum(layer.operations(out) for _, layer, out in layers)
    taken = "input" if network.shape == tuple(shape) else f"input, of {' x '.join(map(str, shape))}"
    rows = [[taken, " x ".join(map(str, network.shape)), "", "", ""]]
    rows += _layer_rows(layers, network.dtype)
    lines = text.table(["layer", "output", "parameters", "multiply-adds", "output bytes"], rows)
    trained, kept = len(network.parameters), len(network.statistics)
    lines.append(
        f"{trained:,} trainable parameters"
        + (f", {trained + kept:,} with statistics" if kept else "")
        + f"; {6 * arithmetic / 1e6:.2f} MFLOP a sample and training step; "
        f"{text.size(trained * network.dtype.itemsize)} of weights"
    )
    return lines + _group_lines(job, network) + _stage_lines(job, network)


def _stage_lines(job: Job, network: Any) -> list[str]:
    """Return a line for each stage of a network that several ranks are to hold so."""
    from ensync.nn.split.stages import stages_of

    if job.parallel.stages == 1:
        return []
    stages = stages_of(network.layers, network.shapes, job.parallel.stages)
    return [f"stage {number}: {stage}" for number, stage in enumerate(stages)]


def _group_lines(job: Job, network: Any) -> list[str]:
    """Return a line for each of optimizer.groups and for the other parameters, with their names."""
    from ensync.nn.optimizers.groups import stretches_of

    names: list[list[str]] = [[] for _ in job.optimizer.of_groups]
    for stretch in stretches_of(job.optimizer, network.layout):
        names[stretch.group] += [name for name, _ in stretch.layout]
    groups = [None, *job.optimizer.groups]
    return [
        f"{f'optimizer.groups {number}' if number else 'in no group'} "
        f"({_how_trained(settings, group)}): {', '.join(inside) or 'nothing'}"
        for number, (settings, group, inside) in enumerate(
            zip(job.optimizer.of_groups, groups, names, strict=True)
        )
        if job.optimizer.groups
    ]


def _how_trained(settings: Optimizer, group: Group | None) -> str:
    """Return the optimiser, its learning rate, and for how long, of parameters in a group."""
    epochs = None if group is None else group.epochs
    if epochs == 0:
        return "not trained"
    limit = "" if epochs is None else f" for {epochs:g} epoch{'s' * (epochs != 1)}"
    return f"{settings.name} {settings.learning_rate:g}{limit}"


def _layer_rows(
    layers: list[tuple[str, Any, tuple[int, ...]]], dtype: np.dtype, indent: str = ""
) -> list[list[str]]:
    """Return the rows of layers, those inside others indented; the figures stand with the
    innermost.
    """
    rows = []
    for prefix, layer, out in layers:
        inside = layer.inside()
        parameters, operations = (
            (0, 0) if inside else (sum(p.size for p in layer.parameters), layer.operations(out))
        )
        rows.append(
            [
                indent + prefix + layer.describe(),
                " x ".join(map(str, out)),
                f"{parameters:,}" if parameters else "",
                f"{operations:,}" if operations else "",
                text.size(int(np.prod(out)) * layer.stored(dtype)[1].itemsize),
            ]
        )
        rows += _layer_rows(inside, dtype, indent + "  ")
    return rows


def describe_run(path: Path, overrides: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield where a run stands: its newest valid checkpoint, members, what it was trained on, last
    epoch and test result.

    Errors: EnsyncError; after that when data.path is another dataset.
    """
    from ensync.runs.content import check
    from ensync.storage.checkpoint import Found, load_checkpoint, load_newest_valid
    from ensync.storage.lock import describe_holder

    found, rejected = (
        (Found(path, *load_checkpoint(path)), [])
        if path.is_file()
        else load_newest_valid(path / "checkpoints")
    )
    lines = [f"{p} is left aside: {why}" for p, why in rejected]
    if found is None:
        why = f" ({rejected[0][1]})" if rejected else ""
        if holder := describe_holder(path):
            why += f", and is in use by {holder}"
        raise EnsyncError(
            f"'{path}' holds no valid checkpoint{why}",
            "the output.directory of a run",
            "check the path",
        )
    attributes = found.attributes
    check(found.path, attributes)
    job = job_from_dict(override(attributes["job"], overrides), str(found.path))
    if holder := describe_holder(found.path.parent.parent):
        lines.append(f"in use by   {holder}")
    lines += [
        f"checkpoint  {found.path}",
        f"made by     {attributes['creator']}",
        f"strategy    {job.training.strategy}, {text.plural(attributes['members'], 'member')}",
        f"vectors     {len(found.arrays)}, "
        f"{text.size(sum(a.nbytes for a in found.arrays.values()))}",
    ]
    data, trouble = _trained_on(found.path, attributes, job.data.path)
    lines += data
    for member, p in enumerate(attributes["positions"]):
        lines.append(
            f"member {member:<4} epoch {p['epoch']} of {job.training.epochs}, step {p['step']}, "
            f"{p['updates']:,} {_of_steps(job)}updates"
            + (f", {p['finished']}" if p["finished"] else "")
        )
    lines += _last_record(attributes["history"])
    yield "\n".join([*map(printable, lines), "", dump_job(job)])
    if trouble:
        raise trouble


def _of_steps(job: Job) -> str:
    return f"of {job.training.max_steps:,} " if job.training.max_steps else ""


def _trained_on(
    checkpoint: Path, attributes: Mapping[str, Any], place: str
) -> tuple[list[str], EnsyncError | None]:
    """Return what a run was trained on and what lies at data.path now, in lines, and the refusal
    when that is another dataset.
    """
    from ensync.runs.identity import Identity, same
    from ensync.storage.dataset import open_dataset

    identity = Identity.from_dict(attributes["dataset"]) if attributes.get("dataset") else None
    unknown = f"{attributes['fingerprint']} (a checkpoint of an older version tells no more)"
    lines = [f"trained on  {identity or unknown}"]
    if identity and identity.preparation:
        lines.append(
            "prepared    "
            + ", ".join(f"{key} {value}" for key, value in identity.preparation.items())
        )
    if not Path(place).exists():
        return [
            *lines,
            f"dataset     {place} does not exist here; `ensync predict` works without it",
        ], None
    try:
        with open_dataset(place) as dataset:
            same(checkpoint, identity, attributes["fingerprint"], dataset)
    except EnsyncError as error:
        return [*lines, f"dataset     {error.given}"], error
    return [*lines, f"dataset     {place}, the same"], None


def _last_record(history: list[dict[str, Any]]) -> list[str]:
    if not history:
        return []
    last = history[-1]
    return [
        f"last epoch  train accuracy {text.percent(last['train_accuracy'])}, validation accuracy "
        f"{text.percent(last['validation_accuracy'])}"
    ]
