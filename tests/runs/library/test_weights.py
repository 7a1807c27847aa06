"""Training starts from exported weights: all of them or all but the last layer, on every member;
what does not fit is refused by name.
"""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ensync
from ensync.core.config.job import dump_job, job_from_dict
from ensync.core.errors import EnsyncError
from ensync.mpi.world import alone
from ensync.nn.models import zoo
from ensync.runs import train
from ensync.runs.export.checking import Asked, check
from ensync.runs.export.weights import Weights, read

FROZEN = [{"parameters": "*", "epochs": 0}]


@pytest.fixture
def weights(place, tmp_path):
    """The file of a run's network."""
    return place.one.export(tmp_path / "digits.safetensors")


def job_of(place, output, weights, **sections):
    tables = {
        "network": {"hidden": [24], "weights": str(weights)},
        "training": {"epochs": 1},
        "optimizer": {"groups": FROZEN},
    }
    tables = {name: tables.get(name, {}) | sections.get(name, {}) for name in tables | sections}
    return ensync.job(data=place.dataset, output=output, **tables)


def test_a_run_starts_from_a_file(place, weights, test_split, tmp_path):
    """All frozen, it is the network of the file; and resumed without the file, too."""
    run = ensync.train(job_of(place, tmp_path / "run", weights), quiet=True)
    expected = place.one.predict_proba(test_split[0])
    assert np.array_equal(run.predict_proba(test_split[0]), expected)
    weights.unlink()
    train.resume(alone(), str(run.directory), ("training.epochs=2",), False)
    resumed = ensync.load(run.directory)
    assert list(resumed.history["epoch"]) == [1, 2]
    assert np.array_equal(resumed.predict_proba(test_split[0]), expected)


def test_members_share_the_start_but_for_a_new_output(place, weights, tmp_path, capsys):
    job = job_of(
        place,
        tmp_path / "run",
        weights,
        network={"new_output": True},
        training={"strategy": "ensemble"},
        ensemble={"members": 2, "start": "own"},
        optimizer={"groups": [{"parameters": "0.*", "epochs": 0}]},
    )
    run = ensync.train(job)
    said = " ".join(capsys.readouterr().out.split())
    assert "2 arrays taken; 2 arrays anew: 3.weight, 3.bias" in said
    states = [load_file(each.export(tmp_path / "m.safetensors")) for each in run.members]
    expected = load_file(weights)
    for name in ("1.weight", "1.bias"):
        assert all(np.array_equal(state[name], expected[name]) for state in states)
    last = [state["3.weight"] for state in [*states, expected]]
    assert len({values.tobytes() for values in last}) == 3


def test_the_verb_says_what_fits_and_how_to_train(place, weights, tmp_path):
    path = tmp_path / "job.toml"
    job = ensync.job(data=place.dataset, network={"hidden": [24]}, output=tmp_path / "run")
    path.write_text(dump_job(job))
    said = check(Asked(str(weights), str(path)))
    assert "fits" in said and "4 arrays taken" in said
    assert f"ensync train {path} --set network.weights={weights}" in said
    said = check(Asked(str(weights), str(path), ("network.new_output=true",)), ((8, 8, 1), 3))
    assert "2 arrays taken; 2 arrays anew: 3.weight, 3.bias" in said
    with pytest.raises(EnsyncError, match="3.weight of shape .*set network.new_output = true"):
        check(Asked(str(weights), str(path)), ((8, 8, 1), 3))


def small(**network):
    tables = {"network": {"name": "mlp", "hidden": [3], **network}}
    job = job_from_dict({"data": {"path": "none"}, "output": {"directory": "none"}, **tables})
    return zoo.build(job, (2, 2, 1), 2, 1)


def state(**changed):
    """The arrays of `small`, counted from 1, but for some; None leaves one out."""
    shapes = {"1.weight": (3, 4), "1.bias": (3,), "3.weight": (2, 3), "3.bias": (2,)}
    found = {name: np.full(shape, i, np.float64) for i, (name, shape) in enumerate(shapes.items())}
    found |= {name.replace("_", "."): values for name, values in changed.items()}
    return {name: values for name, values in found.items() if values is not None}


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"x1_bias": None}, "a file without 1.bias; expected the 4 arrays"),
        ({"x5_bias": np.ones(2)}, "with, beside the network's, 5.bias"),
        ({"x1_bias": np.ones(4)}, r"with 1.bias of shape \(4,\); expected \(3,\)"),
        ({"x1_bias": np.ones(3, np.int64)}, "1.bias of type int64"),
        ({"x1_bias": np.full(3, np.nan)}, "1.bias with values that are not finite"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changed, sentence):
    network = small()
    before = network.parameters.copy()
    given = state(**{name[1:]: values for name, values in changed.items()})
    with pytest.raises(EnsyncError, match=sentence):
        Weights("a.pt", given, False).fill(network)
    assert np.array_equal(network.parameters, before)


def test_a_scale_that_a_layer_does_not_have_must_be_one():
    layers = [{"kind": "batch_normalization", "scale": False}, {"kind": "dense"}]
    network = small(name="layers", hidden=None, layers=layers)
    names = ("weight", "bias", "running_mean", "running_var")
    given = {f"0.{name}": np.ones(1) for name in names}
    given |= {"2.weight": np.ones((2, 4)), "2.bias": np.zeros(2)}
    Weights("a.pt", given, False).fill(network)
    given["0.weight"] = np.full(1, 2.0)
    with pytest.raises(EnsyncError, match="0.weight with a trained scale"):
        Weights("a.pt", given, False).fill(network)


def test_both_kinds_of_files_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    torch.save(module.state_dict(), tmp_path / "a.pt")
    save_file({k: v.numpy() for k, v in module.state_dict().items()}, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        found = read(str(tmp_path / name))
        assert len(found) == 6  # without the count of batches
        assert np.array_equal(found["0.weight"], module[0].weight.detach().numpy())


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("a.safetensors", b"nothing", "is no file of weights"),
        ("a.safetensors", None, "cannot be read"),
        ("a.onnx", b"", "a whole program; expected a file of weights"),
        ("a.npz", b"", "without a format"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(tmp_path, name, content, sentence):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EnsyncError, match=sentence):
        read(str(path))


def test_settings_without_effect_are_refused():
    for network in ({"new_output": True}, {"weights": "a.pt", "initializer": "he_normal"}):
        tables = {"data": {"path": "none"}, "output": {"directory": "none"}}
        with pytest.raises(EnsyncError, match="no effect"):
            ensync.job(**tables, network=network)
