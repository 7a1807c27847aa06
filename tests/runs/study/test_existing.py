"""Which trial wins, and what cells must have alike."""

import json
from dataclasses import replace

import pytest
from runs.study.simulated import PLAIN, cell_of, place, write_simulated

from ensync.core.config.job import job_from_dict
from ensync.core.errors import EnsyncError
from ensync.runs.study.cells import Cell
from ensync.runs.study.existing import best_factor, refuse_earlier, remove_all
from ensync.runs.study.files import read_cell
from ensync.runs.study.origin import (
    Origin,
    _digest,
    check_origin,
    code_sha256,
    differences,
    origin_of,
    read_origin,
    write_origin,
)
from ensync.runs.study.plan_file import read_plan
from ensync.storage import lock


def test_weights_of_another_content_are_another_origin(tmp_path):
    file = tmp_path / "start.safetensors"
    found = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        found.append(origin_of(cell(network={"weights": str(file)}), STUDY, "sha256:1"))
    assert [words.partition(" = ")[0] for words in differences(*found)] == [
        "the content of network.weights"
    ]
    file.unlink()
    missing = origin_of(cell(network={"weights": str(file)}), STUDY, "sha256:1")
    assert "not readable" in str(differences(found[0], missing))


@pytest.mark.parametrize(
    "trials, factor",
    [
        ([(1.0, 0.8), (0.5, 0.9), (2.0, 0.7)], 0.5),
        ([(2.0, 0.9), (1.0, 0.9), (0.5, 0.9)], 1.0),
        ([(2.0, 0.9), (1.0, 0.8), (0.5, 0.9)], 0.5),
        ([(4.0, 0.9), (2.0, 0.9)], 2.0),
        ([(1.0, -1.0), (0.5, -1.0)], 1.0),
    ],
)
def test_the_best_trial_wins_and_of_equal_ones_the_nearest_to_the_job(trials, factor):
    assert best_factor(trials) == factor


def cell(**sections):
    tables = {"data": {"path": "d.h5"}, "output": {"directory": "runs/x"}}
    job = job_from_dict(tables | sections)
    return Cell("synchronous", "synchronous", 2, 1, None, 1.0, job)


STUDY = job_from_dict(
    {"data": {"path": "d.h5"}, "output": {"directory": "runs/x"}, "study": {"seeds": 2}}
)


def test_an_origin_is_read_back_and_names_what_differs(tmp_path):
    now = origin_of(cell(), STUDY, "sha256:1")
    write_origin(tmp_path, now)
    assert read_origin(tmp_path) == now and differences(now, now) == []
    check_origin(tmp_path, now, now)
    for other, words in (
        (origin_of(cell(training={"batch": 3}), STUDY, "sha256:1"), "training.batch = 64, .* 3"),
        (replace(now, dataset="sha256:2"), "another dataset"),
        (replace(now, code="0"), "other sources of Ensync"),
        (None, "nobody knows"),
    ):
        with pytest.raises(EnsyncError, match=words):
            check_origin(tmp_path, *((now, other) if other is not None else (None, now)))


def test_settings_that_change_no_cell_may_differ():
    first = origin_of(cell(), STUDY, "sha256:1")
    other = cell(output={"directory": "runs/y"}, training={"threads": 3})
    more = STUDY.model_copy(update={"study": STUDY.study.model_copy(update={"seeds": 9})})
    assert origin_of(other, more, "sha256:1") == first
    redrawn = STUDY.study.model_copy(update={"redraw_validation": True})
    changed = origin_of(cell(), STUDY.model_copy(update={"study": redrawn}), "sha256:1")
    assert differences(first, changed) == ["study.redraw_validation = False, and this one has True"]


def test_cells_of_a_living_process_are_not_deleted(tmp_path):
    """It is another's in the eyes of this one: its lock was taken by hand."""
    directory = tmp_path / "cells/one_rank/ranks_1/seed_1"
    directory.mkdir(parents=True)
    write_origin(directory, origin_of(cell(), STUDY, "sha256:1"))
    held = lock.take(directory, lock.this_process("compare"))
    with pytest.raises(EnsyncError, match="is in use by `ensync compare`, process"):
        remove_all(tmp_path)
    assert directory.is_dir()
    held.release()
    assert remove_all(tmp_path) == f"deleted in {tmp_path}: 1 cell"
    assert not directory.exists()


def test_results_are_refused_and_a_plan_alone_is_not(tmp_path):
    (tmp_path / "plan.json").touch()
    refuse_earlier(tmp_path)
    (tmp_path / "study.json").touch()
    with pytest.raises(EnsyncError, match="earlier results are there already: .*study.json"):
        refuse_earlier(tmp_path)
    assert remove_all(tmp_path) == f"deleted in {tmp_path}: plan.json, study.json"


def test_damaged_origins_and_absent_ones(tmp_path):
    assert read_origin(tmp_path) is None
    (tmp_path / "started.json").write_text("{")
    with pytest.raises(EnsyncError, match="started.json cannot be used .it is damaged"):
        read_origin(tmp_path)


def test_the_code_is_named_by_all_sources_that_decide_results(tmp_path):
    for name in ("nn/network.py", "report/page.py", "cli/main.py", "cli.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before")
    before = _digest(tmp_path)
    assert len(code_sha256()) == len(before) == 64
    for name, same in {"report/page.py": True, "cli/main.py": True, "nn/network.py": False}.items():
        (tmp_path / name).write_text("after")
        assert (_digest(tmp_path) == before) == same, name
    before = _digest(tmp_path)
    (tmp_path / "cli.py").rename(tmp_path / "other.py")
    assert _digest(tmp_path) != before


@pytest.mark.parametrize("look", [read_cell, read_origin, read_plan])
def test_files_of_another_version_are_refused(tmp_path, look):
    """A cell of one is not taken as done, nor trained anew over it."""
    write_simulated(tmp_path, PLAIN[:1], seeds=(1,))
    cell = place(tmp_path, cell_of(PLAIN[0], 1, 1))
    write_origin(cell, Origin("0", "sha256:0", {}))
    directory, name = {
        read_cell: (cell, "cell.json"),
        read_origin: (cell, "started.json"),
        read_plan: (tmp_path, "plan.json"),
    }[look]
    found = json.loads((directory / name).read_text())
    assert look(directory) is not None
    for key, value in {"version": 2, "format": "ensync-other"}.items():
        (directory / name).write_text(json.dumps(found | {key: value}))
        with pytest.raises(EnsyncError, match=f"{name} cannot be used .its {key} is"):
            look(directory)
