"""Every example of README.md and of each verb's --help runs as it stands on what `ensync demo`
leaves, in the order in which it is printed. The demo is run by the installed wheel.
"""

import gzip
import hashlib
import os
import re
import shlex
import shutil
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pooch
import pytest
from launched.commands import here
from launched.conftest import Place
from PIL import Image
from samples import (
    ROOT,
    folder_members,
    idx_images,
    idx_labels,
    pictures,
    tar,
    write_pictures,
)

from ensync.cli.main import cli
from ensync.runs.demo import NEXT
from ensync.storage.published import PUBLISHED

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(900)]

README, END = "README.md", "the end of ensync demo"
PRINTED = re.compile(r"^  \w+ +(runs/\S+)$", re.M)  # what a verb has written, and its path
# Lines that do not run here, and why.
ELSEWHERE = {
    "mpirun -n 2 ensync demo": "comes first: the fixture `demo`",
    "make demo": "its recipe is `mpirun -n 2 ensync demo`: test_make_demo_is_the_demo",
    "make test": "these tests are a part of it",
    "source .venv/bin/activate": "for the shell of a person",
    **dict.fromkeys(
        (
            "ensync data prepare parquet --from food101/data/ --label-column label",
            "ensync data prepare parquet --from 'food101/data/*.parquet'",
        ),
        "needs pyarrow, an extra: tests/storage/test_sources_parquet.py",
    ),
    "srun --mpi=pmix --nodes=2 --ntasks-per-node=1 ensync doctor "
    "jobs/fashion_mnist/mlp_synchronous.toml": "needs nodes of Slurm: tests/slurm",
    "sbatch --nodes=2 slurm/train.sbatch jobs/fashion_mnist/mlp_synchronous.toml": "as srun",
    "ensync submit jobs/quickstart.toml --nodes 4 --time 1:00:00": "as srun",
    "ensync submit jobs/quickstart.toml --nodes 4 --dry-run": "as srun",
    "ensync data prepare cifar-10 --from downloads/": "takes batches of 10,000 images alone: "
    "tests/storage/test_sources_cifar.py",
    'eval "$(ensync completion bash)"': "for the shell of a person: tests/cli/test_completion.py",
}


class Line(NamedTuple):
    """A command line of a text: its words behind `ensync`, and the ranks that mpirun starts, 0
    without mpirun.
    """

    text: str
    line: str
    ranks: int
    words: tuple[str, ...]


def parsed(text, line):
    """The Line, with the words that a shell makes of it."""
    words = shlex.split(line, comments=True)
    plain = line.split("  ")[0]
    if plain in ELSEWHERE:
        return Line(text, plain, -1, ())
    ranks = 0
    if words[:2] == ["mpirun", "-n"]:
        ranks, words = int(words[2]), words[3:]
    assert words[0] == "ensync", f"{line}: neither Ensync nor in ELSEWHERE"
    return Line(text, plain, ranks, tuple(words[1:]))


def verbs(command=cli, path=("ensync",)):
    """Yield the words of each verb, and the text of its help."""
    context = click.Context(command, info_name=" ".join(path))
    yield " ".join(path), command.get_help(context)
    for name, inner in getattr(command, "commands", {}).items():
        yield from verbs(inner, (*path, name))


def examples():
    """The lines of the shell's code blocks of README.md, and of the indented ones of each help."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / README).read_text(), re.M | re.S)
    found = {README: [line for kind, block in blocks if not kind for line in block.splitlines()]}
    for verb, text in verbs():
        found[f"{verb} --help"] = re.findall(r"^ {4,}((?:ensync|mpirun|eval) .*)$", text, re.M)
    found[END] = list(NEXT)
    return {text: [parsed(text, line) for line in lines] for text, lines in found.items() if lines}


EXAMPLES = examples()
LINES = [line for lines in EXAMPLES.values() for line in lines]
HERE = [line for line in LINES if line.ranks >= 0]


def downloaded(directory):
    """Write a small MNIST where a download is kept; return the MD5 of each file."""
    directory.mkdir(parents=True)
    for name, rows in (("train", 300), ("t10k", 60)):
        seed = rows + len(directory.name)  # no two datasets are alike
        labels = [(row + seed) % 10 for row in range(rows)]
        images = pictures(rows, 28, 28, 1, seed)[..., 0] // 2 + np.array(labels)[:, None, None] * 9
        for kind, data in (
            ("images-idx3", idx_images(images.astype(np.uint8))),
            ("labels-idx1", idx_labels(labels)),
        ):
            (directory / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(data))
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def things_of_a_user(place):
    """Write what the examples take for a user's own: pictures, archives, a table and arrays."""
    write_pictures(place / "photos", rows=13)
    archives(folder_members(place / "photos"), place)
    images, labels = pictures(40, 28, 28, 1), np.arange(40) % 4
    for name in ("digit.png", "shoe.png", "photos/garden.png"):
        Image.fromarray(images[0, ..., 0]).save(place / name)
    heads = ["digit", *(f"pixel{number}" for number in range(784))]
    rows = np.hstack([labels[:, None], images.reshape(40, 784)])
    np.savetxt(place / "table.csv", rows, "%d", ",", header=",".join(heads), comments="")
    halves = {"x_train": images[:30] / 255, "y_train": labels[:30]}
    np.savez(place / "arrays.npz", x_test=images[30:] / 255, y_test=labels[30:], **halves)


def archives(members, place):
    """Write pictures of two classes as a tar of each class, and as shards: folders, or samples
    with the class beside each.
    """
    classes = {label: [] for label, _ in (path.split("/") for path, _ in members)}
    for path, data in members:
        classes[path.split("/")[0]].append((path.split("/")[1], data))
    whole = tar([(f"{label}.tar", tar(of)) for label, of in classes.items()])
    (place / "ILSVRC2012_img_train.tar").write_bytes(whole)
    (place / "shards").mkdir()
    for shard in range(13):
        some = members[shard::13]
        (place / f"train-{shard:02}.tar").write_bytes(tar(some))
        named = [(path.replace("/", "-"), path.split("/")[0], data) for path, data in some]
        pairs = [
            pair
            for name, label, data in named
            for pair in ((name, data), (name.replace("png", "cls"), label.encode()))
        ]
        (place / f"shards/train-{shard:03}.tar").write_bytes(tar(pairs))


class Tried(NamedTuple):
    """What a command line came to: its exit code, and what rank 0 wrote."""

    code: int
    out: str
    err: str


def ran(directory, words):
    """Run a command line in this process on one core, with patterns of file names replaced as by a
    shell.
    """
    with chdir(directory):
        named = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words]
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # threads of a small network wait for each other
    try:
        return Tried(**here(directory, *(word for some in named for word in some)))
    finally:
        os.sched_setaffinity(0, cores)


class Session:
    """Runs the lines of many texts, each text's in a directory of its own in their order. Lines on
    as many ranks, of whatever texts, share one start.
    """

    def __init__(self, place, directories):
        self.place, self.directories = place, directories
        self.tried = {}
        self.waiting = {
            text: [line for line in lines if line.ranks >= 0] for text, lines in EXAMPLES.items()
        }

    def run(self):
        """Run all lines; return what each came to."""
        while any(self.waiting.values()):
            for line in self.next(0):
                self.tried[line] = ran(self.directories[line.text], line.words)
            counts = [lines[0].ranks for lines in self.waiting.values() if lines]
            if counts:
                batch = self.next(min(counts))
                self.tried |= self.started(min(counts), batch)
        return self.tried

    def next(self, ranks):
        """Take the lines on so many ranks that no line on others precedes."""
        found = []
        for lines in self.waiting.values():
            while lines and lines[0].ranks == ranks:
                found.append(lines.pop(0))
        return found

    def started(self, ranks, lines):
        """Run lines in one start on so many ranks."""
        named = {f"{line.text}: {line.line}": line for line in lines}
        commands = {
            name: (line.words, str(self.directories[line.text])) for name, line in named.items()
        }
        records = self.place.all_in(ranks, commands, limit=300)
        return {
            named[name]: Tried(
                max(r["code"] for r in of_ranks),
                of_ranks[0]["out"],
                "".join(r["err"] for r in of_ranks),
            )
            for name, of_ranks in records.items()
        }


@pytest.fixture(scope="module")
def tried(demo, tmp_path_factory):
    """What each line came to."""
    base = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooch, "os_cache", lambda _: base / "cache")
        for name in ("mnist", "fashion-mnist"):
            sums = downloaded(base / "cache/downloads" / name)
            patch.setitem(PUBLISHED[name].__dict__, "files", sums)
        directories = {}
        for number, text in enumerate(EXAMPLES):
            directories[text] = base / str(number)
            shutil.copytree(demo[0], directories[text])
            things_of_a_user(directories[text])
        shutil.copytree(ROOT / "jobs/fashion_mnist", directories[README] / "jobs/fashion_mnist")
        patch.setenv("NUMBA_NUM_THREADS", "1")  # of ranks, which share no core with each other
        return Session(Place(base), directories).run()


@pytest.mark.parametrize("line", HERE, ids=[f"{line.text}: {line.line}" for line in HERE])
def test_an_example_runs(tried, line):
    assert tried[line].code == 0, tried[line]
    assert "Traceback" not in tried[line].err


def test_printed_paths_can_be_pasted_behind_the_next_verb(demo):
    """Those of a comparison of several runs behind one that lists them, those of a study behind
    `report`.
    """
    paths = PRINTED.findall(demo[1])
    assert len(paths) == 11 and all((demo[0] / path).exists() for path in paths)
    for path in paths:
        of_study = path.startswith("runs/studies")
        came = ran(demo[0], ["report" if of_study else "describe", path])
        assert (
            (came.code, came.err) == (0, "")
            if of_study
            else ("runs/quickstart/ensemble" in came.out)
        ), came


def test_only_lines_of_the_texts_are_left_out():
    assert set(ELSEWHERE) == {line.line for line in LINES if line.ranks < 0}
