"""How many members a contestant is worth: the deep-ensemble equivalent, and the power law of the
calibrated log-likelihood against members.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ensync.core.statistics.ensembles import equivalent_members, power_law
from ensync.report.study_results import ContestantResult, MemberFigures, SizeFigures

DEEP = "ensemble_full"  # independent networks on all data: what a deep ensemble is
FEWEST = 3  # sizes that a power law is fitted on
AHEAD = 2  # it predicts up to so many times the members


def with_growth(contestants: Sequence[ContestantResult]) -> list[ContestantResult]:
    """Return the contestants with how many single networks each equals, and with what a power law
    of its first sizes predicts for more members.
    """
    deep = max(
        (each for each in contestants if each.name == DEEP and each.member_figures),
        key=lambda each: each.members,
        default=None,
    )
    return [_grown(each, deep) for each in contestants]


def _grown(each: ContestantResult, deep: ContestantResult | None) -> ContestantResult:
    found = each.member_figures
    if found is None:
        return each
    number, note = _equivalent(each, deep)
    fitted, sizes = _with_law(found)
    return replace(
        each,
        member_figures=replace(
            found, equivalent=number, equivalent_note=note, fitted_on=fitted, by_size=sizes
        ),
    )


def _equivalent(each: ContestantResult, deep: ContestantResult | None) -> tuple[float | None, str]:
    """Return how many networks of the deep ensemble have the calibrated log-likelihood of a
    contestant, or why that is not known.
    """
    if deep is None or deep.member_figures is None:
        return None, f"no equivalent: the study has no {DEEP} of several networks"
    if each.calibrated is None or each.calibrated.log_likelihood.mean is None:
        return None, "no equivalent: its result has no probabilities, or no validation images"
    if each.key == deep.key:
        return float(each.members), ""
    curve = [size.log_likelihood for size in deep.member_figures.by_size]
    known = np.array([np.nan if value is None else value for value in curve])
    number = equivalent_members(known, each.calibrated.log_likelihood.mean)
    if not np.isfinite(number):
        return None, f"equals more than the {deep.members} networks of {deep.label}"
    return number, ""


def _with_law(found: MemberFigures) -> tuple[list[int], list[SizeFigures]]:
    """Return the sizes that the power law was fitted on, the first three quarters, and all sizes
    with what it predicts; none where there are not enough sizes to check it on one.
    """
    sizes = found.by_size
    known = [size for size in sizes if size.log_likelihood is not None]
    count = max(FEWEST, 3 * len(known) // 4)
    if len(known) <= count:
        return [], sizes
    fitted = known[:count]
    law = power_law(
        np.array([size.members for size in fitted]),
        np.array([-(size.log_likelihood or 0.0) for size in fitted]),
    )
    seen = [replace(size, predicted=-law.at(size.members)) for size in sizes]
    more = range(len(sizes) + 1, AHEAD * len(sizes) + 1)
    ahead = [SizeFigures(members=size, predicted=-law.at(size)) for size in more]
    return [size.members for size in fitted], [*seen, *ahead]
