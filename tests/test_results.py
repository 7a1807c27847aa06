"""jobs/RESULTS.md and its picture are what jobs/results.py makes of the comparisons kept beside
them, and those are of the jobs as they stand.
"""

import importlib.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[1] / "jobs"
spec = importlib.util.spec_from_file_location("job_results", JOBS / "results.py")
results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results)
KEPT = results.kept_comparisons()


def test_the_page_is_made_from_the_kept_comparisons():
    assert (JOBS / "RESULTS.md").read_text() == results.results(KEPT), "run `make results`"


@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_picture_is_small_and_has_no_colour_left_open(name):
    path = JOBS / f"comparison-{name}.svg"
    assert path.stat().st_size < 100 * 1024
    drawing = ElementTree.parse(path).getroot()
    assert drawing.tag.endswith("svg") and "var(--" not in path.read_text()


def test_the_picture_shows_the_kept_comparison():
    """Matplotlib's versions place marks a little differently, so only words are compared."""
    for name, colors in (("light", results.LIGHT), ("dark", results.DARK)):
        made = ElementTree.fromstring(results.picture(KEPT[results.PICTURED], colors))
        kept = ElementTree.parse(JOBS / f"comparison-{name}.svg").getroot()
        assert words(made) == words(kept)


def words(drawing):
    return sorted(text.strip() for text in drawing.itertext() if text.strip())


@pytest.mark.parametrize("job", results.jobs(), ids=lambda path: path.stem)
def test_a_kept_comparison_is_of_the_job_as_it_stands(job):
    comparison = KEPT.get(results.name_of(job))
    if comparison is not None:
        assert results.differences(job, comparison) == []


def test_keep_refuses_the_comparison_of_another_job(tmp_path):
    kept = JOBS / "results" / "quickstart.json"
    (tmp_path / "comparison.json").write_text(kept.read_text())
    other = JOBS / "fashion_mnist" / "mlp_ensemble.toml"
    with pytest.raises(SystemExit, match="is no comparison of .*: .*data.path"):
        results.keep(other, tmp_path)
