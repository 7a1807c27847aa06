"""What a partition can give, read from sinfo's words; tests/slurm submits for real."""

import pytest

from ensync.core.errors import EnsyncError
from ensync.runs.slurm import Partition, Request, check, command, minutes, read_partitions

PARTITIONS = read_partitions(
    "debug*|up|30:00|4|16\nlong|up|7-00:00:00|64|48+\n"
    "long|up|7-00:00:00|2|64\nold|down|infinite|1|8\n"
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("30", 30),
        ("1:30", 1.5),
        ("1:00:00", 60),
        ("2-0", 2880),
        ("1-12:30", 2190),
        ("1-00:00:30", 1440.5),
        ("0", 0),
    ],
)
def test_times_of_slurm(text, found):
    assert minutes(text) == found


@pytest.mark.parametrize("text", ["", "an hour", "1:2:3:4", "-5", "1-", "x-1", "1h"])
def test_other_times_are_refused(text):
    with pytest.raises(EnsyncError, match="--time"):
        minutes(text)


def test_partitions():
    assert PARTITIONS == [
        Partition("debug", True, True, 30, 4, 16),
        Partition("long", False, True, 10080, 66, 64),
        Partition("old", False, False, None, 1, 8),
    ]


def test_the_default_and_a_named_partition():
    assert check(Request(4, 2, 8, "30:00"), PARTITIONS).name == "debug"
    assert check(Request(66, 2, 32, "7-00:00:00", "long"), PARTITIONS).name == "long"


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (Request(5, 1, 1, "10"), "--nodes 5; expected at most 4, the nodes of partition 'debug'"),
        (Request(1, 4, 8, "10"), "4 ranks x 8 cores on a node; expected at most 16 cores"),
        (Request(1, 1, 1, "1:00:00"), "--time 1:00:00; expected at most 30 minutes"),
        (Request(1, 1, 1, "10", "lonk"), "no partition 'lonk' (did you mean 'long'?)"),
        (Request(1, 1, 1, "10", "old"), "partition 'old' is down"),
        (Request(1, 1, 1, "soon", "long"), "--time soon"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_partition_cannot_give_is_refused(request_, sentence):
    with pytest.raises(EnsyncError) as caught:
        check(request_, PARTITIONS)
    assert sentence in str(caught.value)


def test_no_default_partition():
    with pytest.raises(EnsyncError, match="no default partition"):
        check(Request(1, 1, 1, "10"), PARTITIONS[1:])


def test_the_line():
    line = command(Request(4, 2, 8, "1:00:00", "long"), "job.toml", ["training.epochs=3"])
    assert (
        " ".join(line)
        == "sbatch --parsable --nodes=4 --ntasks-per-node=2 --cpus-per-task=8 --time=1:00:00 "
        "--partition=long slurm/train.sbatch job.toml --set training.epochs=3"
    )
