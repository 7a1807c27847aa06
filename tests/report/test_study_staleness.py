"""How old the networks of gradients were, on the page of a study."""

from dataclasses import replace

import pytest
from report.study_sample import PLACES, make_study

from ensync.report.study_page import study_page
from ensync.report.study_staleness import served, staleness

HEADING = "How old the networks of gradients were"


def test_the_page_shows_ages_where_there_was_a_server():
    study = make_study(PLACES[:2])
    assert served(study) == [] and HEADING not in study_page(study)
    first, *others = study.contestants
    study = replace(study, contestants=[replace(first, staleness=[2, 6, 0]), *others])
    assert HEADING in study_page(study)
    heights = [bar.get_height() for bar in staleness(study).axes[0].patches]
    assert heights == pytest.approx([0.25, 0.75, 0])
