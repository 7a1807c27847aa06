"""The job file that `ensync init` writes: what it says is what it is checked as, and it trains."""

import tomllib
from types import SimpleNamespace

import pytest

from ensync.cli.main import main
from ensync.core.config.job import job_from_dict, load_job
from ensync.core.config.network import NETWORKS
from ensync.core.errors import EnsyncError
from ensync.runs.describe import describe
from ensync.runs.job_file import settings_for, write_job
from ensync.storage.sources.digits import read_digits
from ensync.storage.writing import write_dataset

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(240)]  # run alone, it compiles


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """A working directory with digits.h5; returns its path."""
    monkeypatch.chdir(tmp_path)
    source = read_digits()
    source.images["train"], source.labels["train"] = (
        source.images["train"][:200],
        source.labels["train"][:200],
    )
    write_dataset(tmp_path / "digits.h5", source, validation=0.1, seed=1)
    return tmp_path / "digits.h5"


def dataset(shape, rows):
    return SimpleNamespace(shape=shape, classes=10, sizes={"train": rows})


def test_the_file_is_the_job_of_its_values(digits):
    write_job("first", "digits.h5", "mlp")
    assert load_job("first.toml") == job_from_dict(
        {
            "data": {"path": "digits.h5"},
            "network": {"name": "mlp", "hidden": [64, 32]},
            "training": {"strategy": "synchronous", "epochs": 20, "batch": 32, "seed": 1},
            "optimizer": {"name": "adam", "learning_rate": 1e-3},
            "output": {"directory": "runs/first"},
        }
    )


def test_each_setting_stands_below_what_it_means(digits):
    write_job("first.toml", "digits.h5", None)
    text = (digits.parent / "first.toml").read_text()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    for table in tomllib.loads(text).values():
        for key in table:
            places = [n for n, line in enumerate(lines) if line.startswith(f"{key} = ")]
            assert places and all(lines[n - 1].startswith("# ") for n in places), key
    assert "# passes over the training rows of a network\nepochs = 20\n" in text


def test_the_file_is_described_and_trains_as_it_is(digits, capsys):
    assert main(["init", "first", "--data", "digits.h5"]) == 0
    assert capsys.readouterr().out.startswith("first.toml is written\n")
    assert "Flatten, dense 64, relu" in "".join(describe("first.toml"))
    assert not main(["train", "first.toml", "--set", "training.threads=1"])
    assert "training ended: all 20 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_had_for_images_that_it_takes(name):
    shape = (64, 64, 3) if name == "alexnet" else (32, 32, 3)
    settings = settings_for(dataset(shape, 50_000), "images.h5", name, "any")
    assert job_from_dict(settings).network.name == name
    assert settings["training"]["batch"] == 128 and settings["training"]["epochs"] == 10


@pytest.mark.parametrize(
    ("shape", "name"), [((8, 8, 1), "mlp"), ((28, 28, 1), "mlp"), ((32, 32, 3), "minixception")]
)
def test_a_network_fits_the_shape(shape, name):
    assert settings_for(dataset(shape, 100), "a.h5", None, "a")["network"]["name"] == name


def test_a_path_that_needs_quotes(tmp_path, monkeypatch, digits):
    name = 'my "best"\\ \n[job]'
    digits.rename(f"{name}.h5")
    write_job(name, f"{name}.h5", None)
    job = load_job(f"{name}.toml")
    assert (job.data.path, job.output.directory) == (f"{name}.h5", f"runs/{name}")


@pytest.mark.parametrize(
    ("name", "data", "network", "told"),
    [
        ("there", "digits.h5", None, "'there.toml' is there already; expected a new file"),
        ("none/job", "digits.h5", None, "no directory 'none' for 'job.toml'"),
        ("new", "digit.h5", None, "digit.h5"),
        ("new", "digits.h5", "mpl", "no network 'mpl' (did you mean 'mlp'?)"),
        ("new", "digits.h5", "alexnet", "a window of 3 pixels"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is(digits, name, data, network, told):
    there = digits.parent / "there.toml"
    there.write_text("mine")
    with pytest.raises(EnsyncError) as refused:
        write_job(name, data, network)
    assert told in str(refused.value)
    assert there.read_text() == "mine" and not (digits.parent / "new.toml").exists()
