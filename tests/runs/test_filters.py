"""`ensync describe --filters` of checkpoints whose filters are known: which belong together, how
colourful they are, what is written, and what is refused.
"""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from report.html_reader import Reader

from ensync.cli.main import main
from ensync.core.config.job import job_from_dict, plain_settings
from ensync.nn.memory import counted
from ensync.nn.models import zoo
from ensync.report.filters.picture import mosaic
from ensync.report.filters.results import Tower
from ensync.report.results import CellResult, to_json
from ensync.runs.filters.verb import filters_in
from ensync.runs.identity import Identity
from ensync.runs.state import RunState
from ensync.storage.checkpoint import checkpoint_name, load_checkpoint, save_checkpoint
from ensync.training.position import Position

pytestmark = pytest.mark.mpi_skip

COLOUR, GREY = np.array([1.0, -1.0, 0.0]), np.array([1.0, 1.0, 1.0])
FILTERS, SIZE = 12, 3


def layers(groups=1, filters=FILTERS, first="convolution"):
    begin = {"kind": first, "size": SIZE}
    return [
        begin | ({"filters": filters, "activation": "relu"} if first == "convolution" else {}),
        {"kind": "local_response_normalization", "groups": groups},
        {"kind": "max_pooling"},
        {"kind": "convolution", "filters": 4, "groups": groups},
        {"kind": "flatten"},
        {"kind": "dense"},
    ]


def leave(directory, weights, network=None, channels=3, **sections):
    """Write the checkpoint of a run, all other parameters 0; weights (size, size, channels,
    filters) of each member. Return its job.
    """
    tables = {
        "data": {"path": "pictures.h5"},
        "network": {"layers": network or layers()},
        "output": {"directory": str(directory)},
    }
    for name, values in sections.items():
        tables[name] = tables.get(name, {}) | values
    job = job_from_dict(tables)
    identity = Identity(
        "pictures",
        ["a", "b"],
        (8, 8, channels),
        *(np.ones(channels, np.float32), np.ones(channels, np.float32)),
        {"train": 9, "validation": 0, "test": 3},
        "sha256:0",
        {},
    )
    with counted():
        built = zoo.build(job, identity.shape, 2, 1)
    arrays = {}
    for member, first in enumerate(weights):
        flat = np.zeros(built.parameters.size, np.float32)
        flat[: first.size] = first.ravel()
        arrays[f"members/{member:04d}/parameters"] = flat
    positions = [Position(epoch=2).as_dict() | {"updates": 7} for _ in weights]
    state = RunState(job, len(weights), "sha256:0", identity)
    (directory / "checkpoints").mkdir(parents=True)
    path = directory / "checkpoints" / checkpoint_name(2, 7)
    save_checkpoint(path, state.attributes(positions), arrays)
    return job


def colours(*shares, seed=0):
    """Return filters (3, 3, 3, filters) whose shares of colour are these."""
    random = np.random.default_rng(seed)
    made = []
    for share in shares:
        place = random.normal(size=(SIZE, SIZE, 1))
        made.append(
            place * (np.sqrt(share / 2) * COLOUR + np.sqrt((1 - share) / 3) * GREY)[None, None]
        )
    return np.stack(made, axis=-1)


RISING = (np.arange(FILTERS) + 0.5) / FILTERS
MIXED = np.concatenate([RISING[::2], RISING[1::2]])


def test_the_towers_of_a_run_are_the_groups_of_its_next_convolution(tmp_path):
    leave(tmp_path / "run", [colours(*RISING)], layers(groups=2))
    result, directory, left_out = filters_in(str(tmp_path / "run"))
    (run,), (found,) = result.runs, result.found
    assert directory == tmp_path / "run" and left_out == [] and run.kind == "towers"
    assert [tower.name for tower in run.towers] == ["tower 0", "tower 1"]
    assert run.towers[0].shares == pytest.approx(RISING[:6], abs=1e-6)
    assert run.towers[1].shares == pytest.approx(RISING[6:], abs=1e-6)
    assert found.difference == pytest.approx(0.5, abs=1e-6) and found.exact
    assert found.p == pytest.approx(2 / 924) and found.colourful == [[0, 6]]
    assert (found.filters, run.epochs, result.dataset.name) == (6, 2, "pictures")


@pytest.mark.parametrize(
    ("members", "sections", "network", "kind", "names"),
    [
        (
            1,
            {"parallel": {"model": 2}},
            layers(2),
            "towers",
            ["tower 0, rank 0", "tower 1, rank 1"],
        ),
        (1, {"parallel": {"model": 2}}, layers(1), "ranks", ["rank 0", "rank 1"]),
        (1, {"parallel": {"model": 2, "convolutions": "data"}}, layers(1), "one", [""]),
        (
            2,
            {"training": {"strategy": "ensemble"}},
            layers(1),
            "networks",
            ["network 0", "network 1"],
        ),
        (1, {}, layers(1), "one", [""]),
    ],
)
def test_filters_are_put_together_by_what_holds_them(
    tmp_path, members, sections, network, kind, names
):
    weights = [colours(*RISING, seed=member) for member in range(members)]
    leave(tmp_path / "run", weights, network, **sections)
    (run,) = filters_in(str(tmp_path / "run"))[0].runs
    assert run.kind == kind and [tower.name for tower in run.towers] == names
    assert len(run.towers[0].shares) == FILTERS * members / len(names)


def leave_cell(study, contestant, seed, done=True, trial=None, **more):
    """Write a cell of a study, with weights of these shares."""
    directory = study / "cells" / contestant / "ranks_1" / f"seed_{seed}"
    job = leave(directory, **more, training={"seed": seed})
    (directory / "started.json").write_text("{}")
    cell = CellResult(
        contestant=contestant, label=f"the {contestant}", ranks=1, seed=seed, trial=trial,
        job=plain_settings(job), seconds=1.0,
    )  # fmt: skip
    if done:
        (directory / "cell.json").write_text(to_json(cell))


def test_a_study_is_tested_over_its_seeds_beside_blocks_of_one_tower(tmp_path, capsys):
    for seed in (1, 2):
        shares = RISING if seed == 1 else RISING[::-1]  # the other tower is the colourful one
        leave_cell(tmp_path, "two", seed, weights=[colours(*shares)], network=layers(2))
        leave_cell(tmp_path, "one", seed, weights=[colours(*MIXED)])
    leave_cell(tmp_path, "late", 1, done=False, weights=[colours(*MIXED)], network=layers(4, 8))
    result, _, left_out = filters_in(str(tmp_path))
    assert len(left_out) == 1 and "late" in left_out[0] and left_out[0].endswith("not done yet")
    one, two = result.found
    assert (one.label, one.kind, one.seeds) == ("the one", "blocks", [1, 2])
    assert one.difference == pytest.approx(1 / FILTERS, abs=1e-6) and one.p > 0.5
    assert (two.kind, two.difference) == ("towers", pytest.approx(0.5, abs=1e-6))
    assert not two.exact and two.p < 0.001
    assert two.least == pytest.approx([RISING[:6].mean()] * 2, abs=1e-6)

    assert not main(["describe", str(tmp_path), "--filters"])
    told = capsys.readouterr().out
    assert "the two: one tower is more colourful than the other, 75.0 % against 25.0 %" in told
    assert "the one: blocks of one tower by their numbers, which mean nothing, by chance" in told
    page = Reader((tmp_path / "filters.html").read_text())
    row = next(row for row in page.rows if row[:1] == ["the two"])
    assert row[1:7] == ["towers", "2", "6", "25.0", "75.0", "50.0"]
    assert page.tags.count("svg") == 4 and "http" not in "".join(
        value for _, name, value in page.attributes if name in ("src", "href")
    )
    kept = json.loads((tmp_path / "filters.json").read_text())
    assert kept["format"] == "ensync-filters" and len(kept["runs"]) == 4
    assert (tmp_path / "filters.png").read_bytes()[:4] == b"\x89PNG"


def test_grey_images_have_a_picture_and_no_measure(tmp_path, capsys):
    weights = np.random.default_rng(0).normal(size=(SIZE, SIZE, 1, FILTERS))
    leave(tmp_path / "run", [weights], layers(2), channels=1)
    assert not main(["describe", str(tmp_path / "run"), "--filters"])
    assert "The images are grey" in capsys.readouterr().out
    page = (tmp_path / "run" / "filters.html").read_text()
    assert "right angles" not in page and re.search(r"<image|xlink:href", page)


def test_a_picture_shows_weights_in_their_place_on_one_scale(tmp_path):
    weights = np.zeros((SIZE, SIZE, 3, FILTERS))
    weights[0, 1, 2, 1], weights[2, 0, 0, 2], weights[0, 0, 1, 3] = 1.0, -1.0, 0.5
    weights[1:, 1:, :, 4:] = 1.0  # so that 99 % of all are within 1
    leave(tmp_path / "run", [weights])
    (tower,) = filters_in(str(tmp_path / "run"))[0].runs[0].towers
    image = mosaic(tower, SIZE, 3)
    assert image.shape == (3 * (SIZE + 1) - 1, 4 * (SIZE + 1) - 1, 4)  # 3 rows of 4
    assert (image[:, SIZE, 3] == 0).all() and (image[:SIZE, :SIZE, 3] == 255).all()
    assert (image[0, 4 + 1, 2], image[2, 8, 0], image[0, 12, 1]) == (255, 0, 191)
    assert set(image[:SIZE, :SIZE, :3].ravel()) == {128}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"network": layers(first="max_pooling")}, "begins with 'Max pooling"),
        ({"channels": 2}, "images of 2 channels"),
    ],
)
def test_what_has_no_pictures_is_refused(tmp_path, capsys, more, said):
    channels = more.get("channels", 3)
    weights = np.zeros((SIZE, SIZE, channels, FILTERS if "network" not in more else 4))
    leave(tmp_path / "run", [weights], **more)
    assert main(["describe", str(tmp_path / "run"), "--filters"]) == 2
    assert said in (told := capsys.readouterr().err) and "expected a network that begins" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "holds no trained run; expected the directory of a run"),
        (["nowhere", "--set", "training.epochs=2"], "--filters goes with a run alone"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(["describe", *words, "--filters"]) == 2
    assert said in capsys.readouterr().err


def test_parameters_that_do_not_fit_the_job_are_refused(tmp_path, capsys):
    leave(tmp_path / "run", [colours(*RISING)])
    (path,) = (tmp_path / "run/checkpoints").iterdir()
    attributes, arrays = load_checkpoint(path)
    save_checkpoint(path, attributes, {name: values[1:] for name, values in arrays.items()})
    assert main(["describe", str(tmp_path / "run"), "--filters"]) == 2
    assert re.search(r"has [\d,]+ parameters of member 0; expected", capsys.readouterr().err)


def test_a_filter_of_zeros_is_left_out():
    tower = Tower(name="", shares=[None, 0.2, 0.8])
    assert tower.known == [0.2, 0.8] and tower.mean == 0.5 and tower.colourful == 1
    assert replace(tower, shares=[None]).mean is None
