"""`ensync describe` of a job whose dataset is not there."""

import pytest

from ensync.cli.main import main
from ensync.storage.sources.digits import read_digits
from ensync.storage.writing import write_dataset

pytestmark = pytest.mark.mpi_skip

JOB = """
[data]
path = "none.h5"
[network]
name = "mlp"
hidden = [3]
[output]
directory = "runs/job"
"""


@pytest.fixture(autouse=True)
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(JOB)


@pytest.mark.parametrize(("shape", "values"), [("5x4x2", 40), ("5x4", 20)])
def test_layers_are_shown_for_the_shape_that_is_given(shape, values, capsys):
    assert not main(["describe", "job.toml", "--shape", shape, "--classes", "7"])
    told = capsys.readouterr().out
    assert f"{3 * values + 3 + 4 * 7} trainable parameters" in told
    assert f"for images of 5 x 4 x {values // 20} in 7 classes; " in told
    assert 'path = "none.h5"' in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["job.toml"], "none.h5 does not exist; expected the prepared dataset of the job; "),
        (["job.toml"], "or give --shape and --classes"),
        (["job.toml", "--shape", "5x4"], "--shape and --classes go together"),
        (["job.toml", "--classes", "4"], "--shape and --classes go together"),
        (["job.toml", "--shape", "5x0", "--classes", "4"], "'5x0' is no shape"),
        (["job.toml", "--shape", "9" * 5000 + "x1", "--classes", "4"], "is no shape"),
        (["job.toml", "--shape", "5x4x3x2", "--classes", "4"], "'5x4x3x2' is no shape"),
        ([".", "--shape", "5x4", "--classes", "4"], "--shape and --classes with .; "),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(words, told, capsys):
    assert main(["describe", *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("parallel", "hidden"), [("model", "[4]"), ("stages", "[3]")])
def test_a_network_of_two_ranks_is_described_for_two(tmp_path, capsys, parallel, hidden):
    """With its steps and the memory that both ranks take."""
    source = read_digits()
    source.images["train"], source.labels["train"] = (
        each["train"][:50] for each in (source.images, source.labels)
    )
    write_dataset(str(tmp_path / "digits.h5"), source)
    more = JOB.replace("none", "digits").replace("[3]", hidden) + f"[parallel]\n{parallel} = 2\n"
    (tmp_path / "job.toml").write_text(more)
    assert not main(["describe", "job.toml"])
    told = capsys.readouterr().out
    assert "of memory on 2 ranks, which hold a network together (2 ranks x " in told
    assert ("\nstage 1: layer 1, 40 parameters, " in told) == (parallel == "stages")
