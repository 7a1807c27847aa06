"""What `ensync scale` takes on its command line."""

import click
import pytest

from ensync.cli.main import main
from ensync.cli.scale import SPEEDS, TIMES, Counts, Quantity

pytestmark = pytest.mark.mpi_skip
LATENCY, BANDWIDTH = Quantity("latency", TIMES, "30us"), Quantity("bandwidth", SPEEDS, "1GB/s")


@pytest.mark.parametrize(
    "kind,given,value",
    [
        (LATENCY, "30us", 30e-6),
        (LATENCY, "0.1 ms", 1e-4),
        (LATENCY, "2e-3s", 2e-3),
        (BANDWIDTH, "10Gbit/s", 1.25e9),
        (BANDWIDTH, "100 Mbit/s", 12.5e6),
        (BANDWIDTH, "1.1GB/s", 1.1e9),
        (Counts(), "4, 1,2,4", (1, 2, 4)),
    ],
)
def test_what_is_given_is_understood(kind, given, value):
    found = kind.convert(given, None, None)
    assert found == pytest.approx(value)
    assert kind.convert(found, None, None) == found


@pytest.mark.parametrize(
    "kind,given",
    [
        *[(LATENCY, given) for given in ("30", "us", "-1us", "0us", "3 days", "1.2.3us")],
        *[(BANDWIDTH, given) for given in ("10", "10Gbit", "nan GB/s")],
        *[(Counts(), given) for given in ("", "0", "1,,2", "1;2", "1,-2", "99999999")],
    ],
)
def test_what_makes_no_sense_is_refused_with_an_example(kind, given):
    with pytest.raises(click.BadParameter, match="such as"):
        kind.convert(given, None, None)


def ended(*arguments):
    """Return the exit code of `ensync scale`, which leaves by itself once MPI has begun."""
    try:
        return main(["scale", *arguments])
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize(
    "arguments,why",
    [
        (["a.toml", "b.toml"], "One job is predicted"),
        (["a.toml", "--prediction", "x"], "go with --check"),
        (["run", "--check", "--ranks", "1,2"], "--check goes with runs"),
        (["a.toml", "--latency", "30us"], "no file 'a.toml'"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments, why, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ended(*arguments) == 2
    said = capfd.readouterr().err
    assert why in said and "Traceback" not in said


def test_half_a_link_is_refused(capfd, tmp_path):
    job = tmp_path / "job.toml"
    job.write_text(f'[data]\npath = "d.h5"\n[output]\ndirectory = "{tmp_path}/run"\n')
    for arguments, why in (
        (["--latency", "30us"], "one of --latency and --bandwidth"),
        (["--set", "training.batch=1"], "training.batch = 1, whose steps are not predicted"),
        (["--set", "training.deterministic=true"], "training.deterministic = true, whose"),
    ):
        assert ended(str(job), *arguments) == 2
        assert why in capfd.readouterr().err
