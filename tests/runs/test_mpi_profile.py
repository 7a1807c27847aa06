"""The profile of a run: its trace is one, its table adds up, and it changes no bit."""

import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from runs.helpers import COMM, StopAt, begin, common_digits, gathered, job_maker, run

from ensync.report.profile.phases import PHASES
from ensync.report.results import StepProfile, from_json
from ensync.runs import lifecycle
from ensync.runs.stopped import Stopped
from ensync.training.batches import BatchLoader

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(300),
]  # the first test may compile
SMALL = {"hidden": [8]}
NORMALISED = [
    {"kind": "flatten"},
    {"kind": "dense", "units": 12},
    {"kind": "batch_normalization", "activation": "relu"},
    {"kind": "dense"},
]
CLOCK = 2e-3  # microseconds: times of the file are whole nanoseconds


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, 330)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        training={"epochs": 2, "batch": 33},
    )


def with_profile(job):
    return job.model_copy(update={"output": job.output.model_copy(update={"profile": True})})


def case(name):
    return {"network": SMALL} | CASES[name]


def profiled(job):
    """Train; return the run, and on rank 0 the events of its file and the table, else None."""
    return run(COMM, with_profile(job)), *read(job.output.directory)


def read(directory):
    if COMM.rank:
        return None, None
    content = json.loads((Path(directory) / "profile.json").read_bytes())
    return content["traceEvents"], from_json(StepProfile, content["otherData"])


def checked(events):
    """Check that events are whole and lie within each other; return each step as its rank, its
    event and those in it.
    """
    rows = defaultdict(list)
    for event in events:
        assert {"ph", "ts", "pid", "tid", "name"} <= event.keys()
        if event["ph"] == "X":
            assert event["dur"] >= 0 and event["ts"] >= 0
            rows[event["pid"], event["tid"]].append(event)
        else:
            assert event["ph"] == "M" and event["args"]["name"]
    for row in rows.values():
        row.sort(key=lambda event: (event["ts"], -event["dur"]))
        around = []
        for event in row:
            while around and event["ts"] >= around[-1] - CLOCK:
                around.pop()
            end = event["ts"] + event["dur"]
            assert not around or end <= around[-1] + CLOCK
            around.append(end)
    whole = [event for row in rows.values() for event in row if event["name"].startswith("step ")]
    return [(event["pid"], event, inside(event, rows)) for event in whole]


def inside(step, rows):
    end = step["ts"] + step["dur"]
    return [
        event
        for (rank, _), row in rows.items()
        for event in row
        if rank == step["pid"] and step["ts"] <= event["ts"] < end and event is not step
    ]


def check_table(steps, table):
    """Check the table with what the events of the file add up to."""
    durations, counts = defaultdict(float), defaultdict(int)
    for rank, step, _ in steps:
        durations[rank] += step["dur"]
        counts[rank] += updates(step)
    means = {rank: durations[rank] / counts[rank] for rank in counts}
    assert 1e6 * table.seconds == pytest.approx(np.mean(list(means.values())), abs=CLOCK)
    assert sum(phase.seconds for phase in table.phases) == pytest.approx(table.seconds)
    assert [phase.name for phase in table.phases] == list(PHASES)
    found = {phase.name: phase for phase in table.phases}
    assert all(phase.least >= -1e-9 for phase in table.phases)
    for name, words in (("input", "load"), ("waiting for the slowest", "wait for")):
        shares = [
            event["dur"] / counts[rank] / len(counts)
            for rank, _, inner in steps
            for event in inner
            if event["name"].startswith(words)
        ]
        assert 1e6 * found[name].seconds == pytest.approx(sum(shares), abs=CLOCK)
    return found


def updates(step):
    """Return how many updates a step's event is, from a name such as "step 1 to 32 of member 0"."""
    words = step["name"].replace(",", "").split()
    return int(words[3]) - int(words[1]) + 1 if words[2] == "to" else 1


CASES = {
    "reducer of the ranks": {},
    "whole updates": {"optimizer": {"name": "momentum", "clip_norm": 1.0}},
    "sums in layers": {"network": {"layers": NORMALISED}},
    "virtual shards": {"training": {"deterministic": True, "virtual_shards": 4}},
    "virtual shards with sums": {
        "training": {"deterministic": True, "virtual_shards": 4},
        "network": {"layers": NORMALISED},
    },
    "slices": {"training": {"slice": 10}},
    "members": {"training": {"strategy": "ensemble"}, "ensemble": {"members": 3}},
    "members that part": {
        "training": {"strategy": "ensemble"},
        "ensemble": {"members": 2, "start": "synchronous"},
    },
    "one sample": {
        "training": {"strategy": "ensemble", "batch": 1, "epochs": 1},
        "optimizer": {"name": "sgd"},
    },
}


@pytest.mark.parametrize("name", CASES)
def test_the_trace_is_one_and_its_table_adds_up(make_job, name):
    trained, events, table = profiled(make_job(**case(name)))
    plain = run(COMM, make_job("plain", **case(name)))
    same = gathered(trained)[0]
    for vector, values in gathered(plain)[0].items():
        assert np.array_equal(same[vector], values), vector
    assert not (Path(plain.directory) / "profile.json").exists()
    if COMM.rank:
        return
    steps = checked(events)
    found = check_table(steps, table)
    assert {rank for rank, _, _ in steps} == set(range(COMM.size)) and table.ranks == COMM.size
    assert table.recorded == table.steps and not table.left_out
    if COMM.size == 1:
        assert found["waiting for the slowest"].most == found["exposed communication"].most == 0
    if name == "one sample":
        assert table.layers == []
        return
    assert all(layer.forward > 0 and layer.backward > 0 for layer in table.layers)
    for _, _, inner in steps:
        words = [event["name"].split()[0] for event in inner]
        assert {"load", "forward", "backward", "reduce", "update"} <= set(words)


@pytest.mark.skipif(COMM.size == 1, reason="ranks wait for others")
def test_a_rank_that_is_slow_is_waited_for(make_job, monkeypatch):
    load = BatchLoader.load

    def slowly(self, *given):
        if COMM.rank == 1:
            time.sleep(0.004)
        return load(self, *given)

    monkeypatch.setattr(BatchLoader, "load", slowly)
    _, events, table = profiled(make_job(network=SMALL))
    if COMM.rank:
        return
    found = check_table(checked(events), table)
    assert found["input"].most_rank == 1 and found["input"].most > 0.004
    waits = found["waiting for the slowest"]
    assert waits.most_rank != 1 and waits.most > 0.002
    assert waits.least_rank == 1
    assert waits.most > 2 * found["exposed communication"].seconds
    assert any(event["name"] == "wait for rank 1" for event in events)


def test_a_run_that_is_stopped_has_the_profile_so_far(make_job):
    with pytest.raises(Stopped):
        lifecycle.train(begin(COMM, with_profile(make_job(network=SMALL)), StopAt(4)))
    _, table = read(make_job(network=SMALL).output.directory)
    if COMM.rank == 0:
        assert (table.recorded, table.first, table.last) == (4, 1, 4)
