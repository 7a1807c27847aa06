"""A script under mpirun in which every rank calls `ensync.train` and `ensync.load`."""

import json

import pytest
from launched import launch
from samples import prepare

pytestmark = [pytest.mark.mpi_skip]

SCRIPT = """
import json, sys
import ensync

run = ensync.train(
    {
        "data": "digits.h5",
        "network": {"hidden": [16]},
        "training": {"epochs": 2, "threads": 1, **json.loads(sys.argv[1])},
        "output": sys.argv[2],
    },
    quiet=True,
)
data = ensync.Dataset("digits.h5")
score = run.score(data.images("test"), data.labels("test"))
sys.stdout.write(json.dumps([score, run.result.test["soft_voting"].accuracy]) + "\\n")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("place")
    prepare("digits", path / "digits.h5")
    (path / "script.py").write_text(SCRIPT)
    return path


def script(place, settings, output):
    return launch.run(2, "script.py", json.dumps(settings), output, cwd=place, limit=60)


def test_every_rank_gets_the_run(place):
    ended = script(place, {"batch": 32}, "runs/both")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert (ended.code, ended.err, len(lines)) == (0, "", 2), ended
    assert len({value for line in lines for value in line}) == 1


def test_a_mistake_ends_all_ranks_with_one_sentence(place):
    ended = script(place, {"batch": -1}, "runs/none")
    assert ended.code == 2 and ended.err.count("training.batch = -1") == 1, ended
    assert "Traceback" not in ended.err and not (place / "runs/none").exists()
