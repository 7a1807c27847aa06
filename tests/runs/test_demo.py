"""What `ensync demo` does beside the comparison, which tests/launched runs."""

import pytest

from ensync.core.errors import EnsyncError
from ensync.runs import demo

pytestmark = pytest.mark.mpi_skip


def test_its_jobs_are_written_once(tmp_path):
    assert demo._jobs_written(tmp_path / "a/b") == (tmp_path / "a/b").resolve()
    names = [tmp_path / "a/b" / name for name in (demo.COMPARISON, demo.STUDY)]
    before = [path.stat().st_mtime_ns for path in names]
    demo._jobs_written(tmp_path / "a/b")
    assert [path.stat().st_mtime_ns for path in names] == before


def test_another_file_is_left_as_it_is(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / demo.COMPARISON).write_text("mine")
    with pytest.raises(EnsyncError, match="is not the demo's; expected .*; have .* --to DIR"):
        demo._jobs_written(tmp_path)
    assert (tmp_path / demo.COMPARISON).read_text() == "mine"


def test_next_lines_begin_with_the_directory_and_name_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one two").mkdir()
    there = demo._next(tmp_path / "one two", 1)
    assert there[0].startswith("cd '/") and there[-1] == demo.ON_RANKS
    assert demo._next(tmp_path, 2) == list(demo.NEXT)
