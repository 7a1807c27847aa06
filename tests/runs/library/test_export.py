"""A run in the formats of other programs: onnxruntime gives what the run predicts, by every fusion;
the weights are those of the module beside them.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load_file
from samples import pictures

import ensync
from ensync.cli.main import cli
from ensync.core.errors import EnsyncError
from ensync.core.fusion import FUSIONS
from ensync.mpi.world import alone
from ensync.runs.export.formats import FORMATS
from ensync.runs.export.fusions import FORMS
from ensync.runs.export.graph import IR_VERSION, OPSET, Graph
from ensync.runs.export.onnx_model import seen
from ensync.runs.export.verb import ExportOptions
from ensync.runs.export.verb import export as verb
from ensync.training.views import views_of


def answers(path, images):
    """Return probabilities and labels of onnxruntime."""
    session = onnxruntime.InferenceSession(str(path))
    return session.run(["probabilities", "label"], {"images": images})


def same(run, path, images, method=None):
    probabilities, labels = answers(path, images)
    assert probabilities.dtype == np.float32 and labels.dtype == np.int64
    np.testing.assert_allclose(probabilities, run.predict_proba(images, method), atol=1e-5)
    assert np.array_equal(labels, run.predict(images, method))


@pytest.mark.parametrize("method", FUSIONS)
def test_every_fusion_is_inside(place, test_split, tmp_path, method):
    path = place.several.export(tmp_path / "run.onnx", method=method)
    same(place.several, path, test_split[0], method)


def test_every_fusion_has_a_form():
    assert FORMS.keys() == FUSIONS.keys()


def test_networks_and_members_are_what_they_predict(place, test_split, tmp_path):
    for run in (place.one, place.several, *place.several.members):
        same(run, run.export(tmp_path / "run.onnx"), test_split[0])


def test_outputs_that_are_no_probabilities_become_some(place, test_split, tmp_path):
    """Of a squared error they may be below zero; of three members one is in the middle."""
    job = ensync.job(
        data=place.dataset,
        training={
            "strategy": "ensemble",
            "epochs": 1,
            "loss": "half_squared_error",
            "targets": (-1, 1),
        },
        network={"hidden": [24]},
        ensemble={"members": 3},
        output=tmp_path / "run",
    )
    run = ensync.train(job, quiet=True)
    for method in ("soft_voting", "hard_voting", "median_voting"):
        path = run.export(tmp_path / "run.onnx", method=method)
        same(run, path, test_split[0], method)


@pytest.mark.parametrize("name,image", [("mirror_shift", (4, 5, 2)), ("ten_views", (7, 10, 2))])
def test_views_are_images_moved_and_mirrored(name, image):
    """As evaluation.augmentation tests with them: up and left by so many pixels, then mirrored."""
    height, width, _ = image
    images = np.random.default_rng(1).standard_normal((3, 2, height, width)).astype(np.float32)
    for view in views_of(name, (4, 5, 2), image):
        graph = Graph()
        last = seen(graph, view, graph.node("Identity", "images"), image)
        ends = [
            helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", 2, *size])
            for value, size in (("images", image[:2]), (last, (4, 5)))
        ]
        constants = list(graph.constants.values())
        whole = helper.make_graph(graph.nodes, "test", ends[:1], ends[1:], constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(whole, ir_version=IR_VERSION, opset_imports=opset)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        framed = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
        top = 1 + (height - 4) // 2 + view.moved[0]
        left = 1 + (width - 5) // 2 + view.moved[1]
        expected = framed[:, :, top : top + 4, left : left + 5]
        expected = expected[..., ::-1] if view.mirrored else expected
        assert np.array_equal(session.run(None, {"images": images})[0], expected)


@pytest.mark.parametrize("views", ["none", "ten_views"])
def test_networks_that_see_a_part_take_whole_images(tmp_path, views):
    images = pictures(60, 9, 8, 3)
    with ensync.Dataset.write(tmp_path / "colours.h5", images, np.arange(60) % 3) as dataset:
        job = ensync.job(
            data=dataset,
            training={"epochs": 1},
            network={"hidden": [9]},
            augmentation={"random_crop": 6, "colour_noise": 0.1},
            evaluation={"augmentation": views},
            output=tmp_path / "run",
        )
        run = ensync.train(job, quiet=True)
    same(run, run.export(tmp_path / "run.onnx"), images)
    source = run.export(tmp_path / "run.safetensors").with_suffix(".py").read_text()
    assert (
        "float32 (n, 3, 6, 6)" in source and "They are the middle of images of 9 x 8 x 3" in source
    )


def test_the_model_says_what_it_is(place, tmp_path):
    model = onnx.load(place.several.export(tmp_path / "run.onnx"))
    onnx.checker.check_model(model, full_check=True)
    said = {each.key: each.value for each in model.metadata_props}
    assert json.loads(said["class_names"]) == place.several.class_names
    assert (said["fusion"], said["members"], said["dataset"]) == ("soft_voting", "2", "digits")
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in shape] == ["n", 8, 8, 1]


def test_weights_are_those_of_the_module_beside_them(place, test_split, tmp_path):
    torch = pytest.importorskip("torch")
    one = place.one.export(tmp_path / "digits.safetensors")
    other = place.one.export(tmp_path / "digits.pt")
    state = {name: torch.from_numpy(values) for name, values in load_file(one).items()}
    same_state = torch.load(other, weights_only=True)
    assert list(same_state) == ["1.weight", "1.bias", "3.weight", "3.bias"]
    assert state.keys() == same_state.keys()
    assert all(torch.equal(values, same_state[name]) for name, values in state.items())
    known = {}
    exec((tmp_path / "digits.py").read_text(), known)
    module = known["network"]()
    module.load_state_dict(state)
    pixels = torch.from_numpy(test_split[0]).permute(0, 3, 1, 2)
    mean, inverse_std = (
        torch.tensor(known[name])[:, None, None] for name in ("MEAN", "INVERSE_STD")
    )
    with torch.no_grad():
        found = module((pixels - mean) * inverse_std).softmax(1)
    np.testing.assert_allclose(found, place.one.predict_proba(test_split[0]), atol=1e-5)
    assert known["CLASS_NAMES"] == place.one.class_names


def test_the_verb_writes_into_the_run_and_says_where(place, test_split, tmp_path, capsys):
    verb(alone(), str(place.several.path.parent.parent), ExportOptions("onnx"))
    path = place.several.directory / "network.onnx"
    assert str(path) in capsys.readouterr().out
    same(place.several, path, test_split[0])
    verb(alone(), str(path), ExportOptions("safetensors", member=1))  # the printed path is a run
    said = capsys.readouterr().out
    assert "member_1.safetensors" in said and "member_1.py" in said


def test_the_command_line_knows_every_format():
    (option,) = [each for each in cli.commands["export"].params if each.name == "form"]
    assert list(option.type.choices) == list(FORMATS)


def refused(sentence, call):
    with pytest.raises(EnsyncError, match=sentence):
        call()


def test_a_mistake_is_told_in_a_sentence(place, tmp_path, monkeypatch):
    run, path = place.several, tmp_path / "run.safetensors"
    refused("an ensemble of 2 networks in the format safetensors", lambda: run.export(path))
    run.export(path, method="weight_averaging")
    assert len(load_file(path)) == 4
    refused("without a format .did you mean '.onnx'", lambda: run.export(tmp_path / "run.onxx"))
    refused("did you mean 'onnx'", lambda: run.export(path, "onx"))
    refused("did you mean 'soft_voting'", lambda: run.export(path, method="soft"))
    refused("directory does not exist", lambda: run.export(tmp_path / "none" / "run.onnx"))
    directory = str(run.directory)
    for member in (-1, 2):
        options = ExportOptions("onnx", member=member)
        refused(f"--member {member} of a run with 2", lambda o=options: verb(alone(), directory, o))
    for name, form in FORMATS.items():
        monkeypatch.setitem(sys.modules, form.package, None)
        refused(
            f"without the package {form.package}; .*pip install",
            lambda n=name: run.export(path, n),
        )
