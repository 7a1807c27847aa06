"""What the tests of the command line share: a directory with a small dataset, and the program
started on ranks.
"""

import json
from pathlib import Path

import pytest
from launched import launch, wheel

ROWS = 300  # of the digits, so that a run takes a moment

JOB = """
[data]
path = "digits.h5"
[network]
hidden = [16]
[training]
epochs = 3
batch = 32
threads = 1    # two threads on a machine with other work wait for each other at every step
[optimizer]
learning_rate = 0.02
[ensemble]
start = "shared"
[output]
directory = "runs/job"
"""


class Place:
    """A directory to work in, with digits.h5 and job.toml, and Ensync on any number of ranks
    there.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __truediv__(self, name: str) -> Path:
        return self.directory / name

    def ensync(self, ranks: int, *arguments: str, limit: float = 60) -> launch.Run:
        """Run `ensync arguments` on that many ranks; it must end within `limit` seconds."""
        ended = launch.run(ranks, "-m", "ensync", *arguments, limit=limit, cwd=self.directory)
        assert not ended.timed_out, ended
        return ended

    def start(self, ranks: int, *arguments: str, **options):
        """Start `ensync arguments`; the caller ends it with launch.stop."""
        return launch.start(ranks, "-m", "ensync", *arguments, cwd=self.directory, **options)

    def done(self, ranks: int, *arguments: str, limit: float = 60) -> str:
        """Run `ensync arguments`, which must succeed in silence on the error stream; return what
        it wrote.
        """
        ended = self.ensync(ranks, *arguments, limit=limit)
        assert (ended.code, ended.err) == (0, ""), ended
        return ended.out

    def all_of(
        self, ranks: int, commands: dict[str, list[str]], limit: float = 120
    ) -> dict[str, list[dict]]:
        """Run many command lines in one start; return each one's records by rank (see
        commands.py).
        """
        return self.all_in(ranks, {name: (line, ".") for name, line in commands.items()}, limit)

    def all_in(self, ranks: int, commands: dict[str, tuple], limit: float) -> dict[str, list[dict]]:
        """Run many command lines in one start, each (line, directory) where it says."""
        listed = self / "commands.json"
        listed.write_text(
            json.dumps([[name, *line_and_place] for name, line_and_place in commands.items()])
        )
        ended = launch.run(
            ranks,
            str(Path(__file__).with_name("commands.py")),
            str(listed),
            limit=limit,
            cwd=self.directory,
        )
        by_rank = [json.loads(Path(f"{listed}.rank{rank}").read_text()) for rank in range(ranks)]
        missing = [name for name in commands if name not in by_rank[0]]
        assert ended.code == 0 and not missing, (missing[:1], ended)
        return {name: [records[name] for records in by_rank] for name in commands}

    def result(self, run: str = "runs/job", name: str = "result.json") -> dict:
        """The result.json of a run, or another file of figures in its directory."""
        return json.loads((self / run / name).read_text())

    def history(self, run: str = "runs/job") -> list[dict]:
        """The records of a run's history."""
        return [
            json.loads(line) for line in (self / run / "history.jsonl").read_text().splitlines()
        ]

    def checkpoints(self, run: str = "runs/job") -> list[str]:
        """The names in a run's checkpoint directory, hidden ones too."""
        return sorted(path.name for path in (self / run / "checkpoints").iterdir())


def write_digits(path: Path, rows: int = ROWS) -> None:
    """Write the first digits as a dataset."""
    from ensync.storage.sources.digits import read_digits
    from ensync.storage.writing import write_dataset

    source = read_digits()
    for split in source.images:
        source.images[split], source.labels[split] = (
            source.images[split][:rows],
            source.labels[split][:rows],
        )
    write_dataset(path, source, validation=0.1, seed=1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A small digits.h5; on the way all kernels that it needs are compiled, which no test's time
    limit includes.
    """
    path = tmp_path_factory.mktemp("dataset") / "digits.h5"
    write_digits(path)
    (path.parent / "job.toml").write_text(JOB)
    once = ["--set", "training.epochs=1", "--overwrite"]
    online = ["--set", "training.batch=1", "--set", "optimizer.name=sgd"]
    Place(path.parent).all_of(
        1,
        {
            "steps": ["train", "job.toml", "--set", "network.dropout=0.1"],
            "online": ["train", "job.toml", *online, *once],
            "meetings": ["train", "job.toml", "--set", "communication.every=4", *once],
        },
        limit=290,
    )
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The wheel that is made of the sdist."""
    place = tmp_path_factory.mktemp("package")
    return wheel.wheel(wheel.sdist(place), place)


@pytest.fixture(scope="session")
def site(made, tmp_path_factory):
    """A directory into which the wheel is installed, with short trainings in its jobs."""
    site = tmp_path_factory.mktemp("installed") / "site"
    wheel.install(made, site)
    for path in (site / "ensync/runs/jobs").rglob("*.toml"):
        text = path.read_text()
        assert "epochs = 20\n" in text
        path.write_text(text.replace("epochs = 20\n", "epochs = 3\n"))
    return site


@pytest.fixture(scope="session")
def demo(site, dataset, tmp_path_factory):
    """What `mpirun -n 2 ensync demo` of the installed wheel wrote into an empty directory, and
    what it printed.
    """
    place = tmp_path_factory.mktemp("demo")
    command, options = str(site / "bin/ensync"), {"env": wheel.environment(site), "cwd": place}
    ended = launch.run(2, command, "demo", limit=300, **options)
    assert (ended.code, ended.err) == (0, ""), ended
    return place, ended.out


def make_place(directory, dataset):
    (directory / "digits.h5").symlink_to(dataset)
    (directory / "job.toml").write_text(JOB)
    return Place(directory)


@pytest.fixture
def place(tmp_path, dataset):
    return make_place(tmp_path, dataset)


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory, dataset):
    return make_place(tmp_path_factory.mktemp("place"), dataset)
