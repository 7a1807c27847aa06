"""A study as one HTML page that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensync.report import (
    study_along_figures,
    study_details,
    study_figures,
    study_staleness,
    text,
)
from ensync.report.files import finite
from ensync.report.page import Section, facts_of, phrase, render, section, toml_of
from ensync.report.plots import Drawing, draw
from ensync.report.results import from_json
from ensync.report.study_files import made_on, question, subject
from ensync.report.study_results import ContestantResult, StudyResult
from ensync.report.study_tables import Table, predicted_by, study_tables
from ensync.report.study_verdict import poles, study_verdict, untimed_reason

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPEN = {"accuracy", "left_out"}  # tables that are not folded
MEANING = (
    "Of each contestant a bar shows 95 %: thick on these test images, thin on new images, too."
)


def study_page(study: StudyResult) -> str:
    """Return the page of a study."""
    study = from_json(StudyResult, finite(study))  # as it will be read from its file
    tables = study_tables(study)
    return render(
        "study.html",
        title=f"Ensync study: {subject(study)}",
        heading=question(study),
        under=_under(study),
        verdict=study_verdict(study),
        budget=(study.budget.name.replace("_", " "), study.budget.sentence),
        sections=_sections(study),
        tables=[_shown(table) for table in tables],
        method=_method(study),
        facts=[*facts_of(study), *_sources(study)],
        job=toml_of(study.job),
        version=f" {study.versions['ensync']}" if "ensync" in study.versions else "",
        beside="study.json, study.csv, study_pairs.csv, study.md and study.tex",
    )


def _shown(table: Table) -> dict[str, object]:
    return {
        "title": table.title,
        "heads": table.heads,
        "rows": table.rows,
        "left": table.left,
        "notes": table.notes,
        "open": table.name in OPEN,
    }


def _under(study: StudyResult) -> str:
    """Return the line below the heading: when, where, how much."""
    seeds = max((len(each.seeds) for each in study.contestants), default=0)
    names = len({each.name for each in study.contestants})
    ranks = ", ".join(map(str, study.ranks))
    much = [
        text.plural(names, "contestant"),
        text.plural(seeds, "seed"),
        f"{ranks} {'rank' if ranks == '1' else 'ranks'}",
        f"{text.plural(study.cells_done, 'cell')} done",
    ]
    return "; ".join(filter(None, [", ".join(much), made_on(study)]))


def _sections(study: StudyResult) -> list[Section]:
    """Return the page's figures under their headings."""
    if not study.contestants:
        return []
    return [
        section("At a glance", along(study) if study.over else _glance(study)),
        section("How old the networks of gradients were", _staleness(study)),
        section("What the members give", _members(study)),
        _differences(study),
        section("How sure they are", _reliability(study)),
        _confusions(study),
    ]


def _glance(study: StudyResult) -> list[Drawing]:
    cost = study_figures.cost_of(study)
    found = []
    if cost.places:
        numbers = (
            "The number above a mark is that of the ranks; marks of about the same cost stand side "
            f"by side. {MEANING}"
        )
        caption = " ".join(filter(None, [cost.why, numbers]))
        label = f"accuracy, {cost.label}"
        found.append(_draw(study_figures.headline(study), "headline", label, caption))
    if len(study.ranks) > 1:
        ranks = study_figures.accuracy_by_ranks(study)
        found.append(_draw(ranks, "ranks", "accuracy against ranks", MEANING))
    return found


def along(study: StudyResult) -> list[Drawing]:
    """Return the plots of a study over one setting."""
    assert study.over is not None
    value = f"Above a mark stands its {study.over.setting}. {MEANING}"
    if not study_along_figures.sends(study):
        figure = study_along_figures.by_value(study)
        return [_draw(figure, "value", f"accuracy against {study.over.setting}", MEANING)]
    found, sent = [], study_along_figures.sent(study)
    if sent:
        zero = (
            ""
            if all(sent.values())
            else " 0 B is left of the dotted line: a logarithmic axis has no place for it."
        )
        why = "" if study_along_figures.seconds(study) else f" {_untimed(study)}"
        figure = study_along_figures.by_bytes(study)
        found.append(_draw(figure, "bytes", "accuracy against bytes", value + zero + why))
    if study_along_figures.seconds(study):
        figure = study_along_figures.by_seconds(study)
        found.append(_draw(figure, "seconds", "accuracy against seconds", value))
    if study.predicted:
        figure, caption = study_along_figures.by_prediction(study), predicted_by(study)
        found.append(_draw(figure, "predicted", "accuracy against predicted seconds", caption))
    return found


def _untimed(study: StudyResult) -> str:
    reason = untimed_reason(*study.contestants)
    return f"{reason[:1].upper()}{reason[1:]}."


def _draw(figure: Figure, name: str, label: str, caption: str = "") -> Drawing:
    return draw(figure, f"study-{name}", label, caption)


def _staleness(study: StudyResult) -> list[Drawing]:
    if not study_staleness.served(study):
        return []
    caption = "Steps between the network that a gradient is of and the one that it changes."
    figure = study_staleness.staleness(study)
    return [_draw(figure, "staleness", "gradients by age of their network", caption)]


def _members(study: StudyResult) -> list[Drawing]:

    grown = study_details.grown(study)
    if not grown:
        return []
    subsets = "Mean and standard deviation over subsets of the members, mean over seeds."
    found = [
        _draw(study_details.accuracy_by_size(study), "members", "accuracy by members", subsets)
    ]
    known = [size.log_likelihood for each in grown for size in study_details.by_size(each)]
    if any(value is not None for value in known):
        fitted = sorted({size for each in grown for size in _fitted(each)})
        law = f" Lines: c + b k^a, fitted on {phrase(fitted)} members." if fitted else ""
        found.append(
            _draw(
                study_details.likelihood_by_size(study),
                "likelihood",
                "log-likelihood by members",
                f"Higher is better, after one temperature each.{law}",
            )
        )
    return found


def _fitted(each: ContestantResult) -> list[int]:
    return each.member_figures.fitted_on if each.member_figures else []


def _differences(study: StudyResult) -> Section:

    counts = sorted({pair.ranks for pair in study.pairs}, reverse=True)
    drawn = [
        _draw(
            study_details.differences(study, ranks),
            f"pairs-{ranks}",
            f"paired differences on {text.plural(ranks, 'rank')}",
            "Blue and +: the row is better. Bold: told apart, also when corrected for all pairs "
            "(Holm); = practically equal; ? not enough seeds to tell.",
        )
        for ranks in counts
    ]
    fold = "On fewer ranks"
    return {"heading": "Every pair", "figures": drawn[:1], "folded": drawn[1:], "fold": fold}


def _reliability(study: StudyResult) -> list[Drawing]:
    most = study.ranks[-1]
    shown = [each for each in study.contestants if each.ranks in (1, most) and each.reliability]
    shown = shown[: study_details.DIAGRAMS]
    if not shown:
        return []
    marks = study_figures.marks_of(study)
    figure = study_details.reliability(shown, [marks[each.name] for each in shown])
    one = "; one rank beside" if most > 1 and any(each.ranks == 1 for each in shown) else ""
    caption = (
        f"On {text.plural(most, 'rank')}{one}. A point is a fifteenth of the test "
        "images of all seeds; below the dotted line the network is too sure of itself."
    )
    return [_draw(figure, "reliability", "reliability diagrams", caption)]


def _confusions(study: StudyResult) -> Section:
    """Return the confusion matrices of the verdict's two; those of the others folded."""
    found = poles(study)
    keys = [found.first.key, found.second.key] if found else []
    first = [study.by_key(key) for key in keys]
    rest = [each for each in study.contestants if each.key not in keys]
    return {
        "heading": "What is taken for what",
        "figures": [_confusion(study, each) for each in first if each.confusion],
        "folded": [_confusion(study, each) for each in rest if each.confusion],
        "fold": "The others",
    }


def _confusion(study: StudyResult, each: ContestantResult) -> Drawing:
    from ensync.report.confusion import confusion_matrix

    label = f"{each.label}, {text.plural(each.ranks, 'rank')}"
    names = study.class_names or [str(place) for place in range(len(each.confusion))]
    seeds = f"Counts of {text.plural(len(each.seeds), 'seed')} together."
    name = f"confusion-{study.contestants.index(each)}"
    figure = confusion_matrix(each.confusion, names, label)
    return _draw(figure, name, f"confusion matrix of {label}", seeds)


def _method(study: StudyResult) -> list[str]:
    """Return how the figures came about, sentence by sentence."""
    split = (
        "The validation split is drawn anew for each seed, so that intervals know the luck of the "
        "split; Nadeau and Bengio's correction allows for training images in common."
        if study.redraw_validation
        else "All seeds have the same validation split."
    )
    rates = (
        f"Every contestant was given {study.trials} learning rates, tried on the first seed and "
        "judged on the validation images."
        if study.trials > 1
        else "Learning rates are those of the job; none was tuned for a contestant."
    )
    return [
        "Seeds are paired: a seed gives every contestant the same split, order and start where "
        "that makes sense.",
        split,
        rates,
        "The verdict takes the best contestant that trains together and the best that trains "
        "apart on the most ranks, by validation accuracy; the test images decide nothing.",
        "On these test images: Student's t over seeds, blind to which images were drawn. On new "
        "images: with the variance of the images, of the seeds and of both together (analysis of "
        "variance). A two-level bootstrap (Owen 2007) is not shown: where seeds matter, its 95 % "
        "intervals hold only 83 % in simulations with 3 seeds and 88 % with 5.",
        "Two contestants are told apart where the interval on new images excludes 0, and the "
        "better one is ahead with a probability above 0.75 whose interval excludes 0.5 "
        "(Bouthillier et al. 2021). They are practically equal where that interval lies within "
        f"{study.practically_equal:g} points of 0.",
        "The verdict's two were chosen before the test images were looked at, so that it needs no "
        "correction for the number of pairs; who picks another pair from the table does (Holm).",
    ]


def _sources(study: StudyResult) -> list[list[tuple[str, str]]]:
    """Return a table with the digest of the sources that trained the cells, where it is known."""
    return [[("sources", f"sha256 {study.code}")]] if study.code else []
