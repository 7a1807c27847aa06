"""The tables of a study as cells of plain text, the same in the terminal, on the page, in Markdown
and in LaTeX.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ensync.report import text
from ensync.report.study_along import beside_first
from ensync.report.study_results import (
    ContestantResult,
    PairResult,
    Scores,
    Spread,
    StudyResult,
)
from ensync.report.study_text import between, chance, figures, named, points, shares, span
from ensync.report.study_verdict import poles, reached_target, study_verdict, told_on_a_page
from ensync.report.verdict import LIKELY

VERDICTS = {"equal": "practically equal", "unknown": "not enough seeds"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a study: its first `left` columns hold words, the others figures. notes: what
    stands below it.
    """

    name: str
    title: str
    heads: list[str]
    rows: list[list[str]]
    left: int = 1
    notes: list[str] = field(default_factory=list)


def study_tables(study: StudyResult) -> list[Table]:
    """Return the tables of a study that have rows."""
    made = (
        accuracy_table(study),
        cost_table(study),
        predicted_table(study),
        scores_table(study),
        pairs_table(study),
        fusions_table(study),
        members_table(study),
        left_out_table(study),
    )
    return [table for table in made if table.rows]


def accuracy_table(study: StudyResult) -> Table:
    """Return the test accuracy of every contestant with both intervals."""
    rows = [
        [
            *_start(each),
            str(each.members),
            str(len(each.seeds)),
            shares(each.accuracy),
            between(each.accuracy.on_these_images),
            between(each.accuracy.on_new_images),
            shares(each.validation_accuracy),
        ]
        for each in study.contestants
    ]
    heads = ["contestant", "ranks", "networks", "seeds", "test accuracy, %", "these images"]
    notes = [
        "Accuracy: mean over seeds with its standard deviation. Both intervals hold 95 %: the "
        "first for the mean of more seeds on these test images, the second also for new images.",
        *[
            f"{each.label}, {text.plural(each.ranks, 'rank')}: {note}"
            for each in study.contestants
            for note in each.notes
        ],
    ]
    return Table("accuracy", "Accuracy", [*heads, "new images", "validation, %"], rows, notes=notes)


def _start(contestant: ContestantResult) -> list[str]:
    return [contestant.label, str(contestant.ranks)]


def cost_table(study: StudyResult) -> Table:
    """Return what every contestant took."""
    marks = {True: " *", False: ""}
    rows = [
        [
            *_start(each),
            str(each.threads),
            _seconds(each.cost.seconds) + marks[not each.cost.timed],
            _seconds(each.cost.core_seconds) + marks[not each.cost.timed],
            text.count(None if each.cost.samples is None else round(each.cost.samples)),
            text.count(None if each.cost.steps is None else round(each.cost.steps)),
            text.size(each.cost.bytes_sent),
            sent_per_sample(each),
            f"{each.parameters:,}",
            text.setting(each.learning_rate_factor),
        ]
        for each in study.contestants
    ]
    heads = ["contestant", "ranks", "threads", "seconds", "core-seconds", "samples", "steps"]
    more = ["sent", "sent a sample", "parameters", "learning rate x"]
    notes = [
        "Steps and parameters are of one network, samples of all. Core-seconds: seconds x "
        "ranks x threads. Sent: what all ranks pass to others, in a sum over p of them each "
        "2 (p - 1) / p of its bytes."
    ]
    if any(each.cost.packed for each in study.contestants):
        notes.append("* Other cells ran beside: these seconds are no measure and not compared.")
    if any(each.cost.oversubscribed for each in study.contestants):
        notes.append("* More threads than cores: these seconds are no measure and not compared.")
    target = _target_notes(study)
    return Table("cost", "Cost", [*heads, *more], rows, notes=[*notes, *target])


def sent_per_sample(contestant: ContestantResult) -> str:
    """Return the bytes that all ranks sent for each sample, mean over seeds: "12.3 kB"."""
    sent = contestant.cost.bytes_per_sample
    return text.size(sent.mean if sent else None)


def _seconds(spread: Spread | None) -> str:
    return text.seconds(spread.mean if spread else None)


def predicted_table(study: StudyResult) -> Table:
    """Return the seconds that were predicted for more nodes."""
    times = study.predicted
    rows = [
        [each.label, *[text.seconds(one.seconds.get(each.name)) for one in times]]
        for each in study.contestants
        if any(each.name in one.seconds for one in times)
    ]
    heads = ["contestant", *[text.plural(one.nodes, "node") for one in times]]
    notes = [predicted_by(study)] if times else []
    return Table("predicted", "Predicted seconds of training", heads, rows, notes=notes)


def predicted_by(study: StudyResult) -> str:
    """Return the sentence on how seconds were predicted, "" where none were."""
    if not study.predicted:
        return ""
    first = study.predicted[0]
    return (
        "Seconds of all steps, predicted by ensync scale for the same batches on so many nodes, "
        f"whose links take {1e6 * first.latency:.3g} us a message and pass "
        f"{text.size(first.bandwidth)} a second. Accuracy is as measured on "
        f"{text.plural(max(study.ranks), 'rank')}."
    )


def _target_notes(study: StudyResult) -> list[str]:
    """Return when each contestant reached the target, where the budget is one."""
    if study.budget.name != "target":
        return []
    return [
        f"{each.label}, {text.plural(each.ranks, 'rank')}: reached the target "
        f"{reached_target(each, each.cost.timed)}."
        for each in study.contestants
    ]


def scores_table(study: StudyResult) -> Table:
    """Return how good the probabilities of every contestant are, before and after calibration."""
    rows = [
        [
            *_start(each),
            *_scores(each.scores),
            *_scores(each.calibrated),
            figures(each.temperature, 2),
            shares(each.macro_f1),
            shares(each.worst_class.recall) if each.worst_class else text.DASH,
            each.worst_class.name if each.worst_class else text.DASH,
            shares(each.top_k.accuracy) if each.top_k else text.DASH,
        ]
        for each in study.contestants
    ]
    k = next((each.top_k.k for each in study.contestants if each.top_k), 5)
    scores = ["log-likelihood", "Brier", "ECE, %"]
    heads = ["contestant", "ranks", *scores, *[f"{head} (cal.)" for head in scores]]
    more = ["temperature", "macro F1, %", "worst class, %", "which", f"top {k}, %"]
    notes = [
        "Log-likelihood: mean of log p(label) in nats, higher is better; Brier score and expected "
        "calibration error (15 bins of equal mass): lower is better. (cal.): after one "
        "temperature, fitted on the validation images after pooling, without which such scores "
        "cannot be compared (Ashukha et al. 2020)."
    ]
    return Table("scores", "Beyond accuracy", [*heads, *more], rows, notes=notes)


def _scores(scores: Scores | None) -> list[str]:
    if scores is None:
        return [text.DASH] * 3
    return [figures(scores.log_likelihood), figures(scores.brier), shares(scores.ece)]


def pairs_table(study: StudyResult) -> Table:
    """Return every pair with its difference, both intervals and what is said of it."""
    rows = [_pair(study, pair) for pair in study.pairs]
    heads = ["first", "second", "difference", "these images", "new images", "P(first better)"]
    more = ["p (Holm)", "McNemar p < 0.05", "verdict"]
    corrected = any(pair.corrected for pair in study.pairs)
    if corrected:
        more.insert(0, "Nadeau-Bengio")
        for row, pair in zip(rows, study.pairs, strict=True):
            row.insert(6, span(pair.corrected, sign=True))
    notes = [
        "Differences are first - second in points of test accuracy over paired seeds, with 95 % "
        "intervals. P: of a seed on which the first is better, ties half. p: of no difference on "
        f"new images, adjusted for all {len(study.pairs)} pairs (Holm 1979). McNemar's test looks "
        "at one seed and is blind to the others.",
        f"Practically equal: surely within {study.practically_equal:g} points.",
    ]
    return Table("pairs", "Pairs", [*heads, *more], rows, left=2, notes=notes)


def _pair(study: StudyResult, pair: PairResult) -> list[str]:
    better = text.DASH if pair.better is None else f"{pair.better:.2f}"
    ends = pair.better_interval
    if ends is not None and not text.missing(ends.low) and not text.missing(ends.high):
        better += f" ({ends.low:.2f} to {ends.high:.2f})"
    return [
        named(study, pair.first),
        named(study, pair.second),
        points(pair.difference, sign=True),
        span(pair.on_these_images, sign=True),
        span(pair.on_new_images, sign=True),
        better,
        text.DASH if pair.p_holm is None else chance(pair.p_holm).removeprefix("= "),
        _mcnemar(pair),
        said(study, pair),
    ]


def _mcnemar(pair: PairResult) -> str:
    """Return on how many seeds McNemar's test alone would tell the two apart."""
    sure = sum(each.p_value < LIKELY for each in pair.mcnemar)
    return f"{sure} of {text.plural(len(pair.mcnemar), 'seed')}" if pair.mcnemar else text.DASH


def said(study: StudyResult, pair: PairResult) -> str:
    """Return the verdict on a pair in a few words."""
    if pair.verdict in ("first", "second"):
        better = pair.first if pair.verdict == "first" else pair.second
        alone = "" if told_on_a_page(pair) else ", not after Holm"
        return f"{study.by_key(better).label} better{alone}"
    words = VERDICTS.get(pair.verdict, pair.verdict)
    if pair.verdict != "unknown" or len(pair.seeds) < 2:
        return words
    if pair.seeds_needed is None:
        return "not enough test images"
    more = pair.seeds_needed - len(pair.seeds)
    return f"{words}: about {more:,} more" if more > 0 else words


def fusions_table(study: StudyResult) -> Table:
    """Return the accuracy of every fusion of every contestant of several networks; why one makes
    no sense stands below.
    """
    several = [each for each in study.contestants if each.members > 1]
    labels = {one.name: one.label for each in several for one in each.fusions}
    rows: list[list[str]] = []
    whys: dict[tuple[str, str], list[str]] = {}
    for each in several:
        known = {one.name: one for one in each.fusions}
        cells = [shares(known[name].accuracy) if name in known else text.DASH for name in labels]
        rows.append([*_start(each), *cells])
        for one in each.fusions:
            if why := one.refused or one.note:
                where = f"{each.label} on {text.plural(each.ranks, 'rank')}"
                whys.setdefault((one.label, why), []).append(where)
    notes = [f"{label}, {'; '.join(where)}: {why}" for (label, why), where in whys.items()]
    first = "The contestant's result is by the fusion of its job; the others were not chosen from."
    heads = ["contestant", "ranks", *labels.values()]
    return Table("fusions", "Fusions, test accuracy in %", heads, rows, notes=[first, *notes])


def members_table(study: StudyResult) -> Table:
    """Return what the members of every contestant of several networks are like."""
    rows, notes = [], []
    for each in study.contestants:
        found = each.member_figures
        if found is None:
            continue
        known = [100 * value for value in found.accuracies if value is not None]
        own = f"{min(known):.2f} to {max(known):.2f}" if known else text.DASH
        rows.append(
            [
                *_start(each),
                own,
                shares(each.accuracy),
                shares(found.disagreement),
                shares(found.double_fault),
                shares(found.oracle),
                figures(found.member_loss),
                figures(found.fused_loss),
                figures(found.ambiguity),
                text.setting(None if found.equivalent is None else round(found.equivalent, 2)),
            ]
        )
        if found.equivalent_note:
            ranks = text.plural(each.ranks, "rank")
            notes.append(f"{each.label}, {ranks}: {found.equivalent_note}")
    heads = ["contestant", "ranks", "members' own, %", "fused, %", "disagreement, %"]
    more = ["double fault, %", "oracle, %", "loss of members", "loss fused", "saved", "equivalent"]
    meaning = (
        "Disagreement: images on which two members differ; double fault: on which two are both "
        "wrong; oracle: on which at least one is right. Saved: the loss of the mean member less "
        "that of soft voting. Equivalent: as many single networks, trained on all data and fused, "
        "have the same calibrated log-likelihood (Ashukha et al. 2020)."
    )
    return Table("members", "Members", [*heads, *more], rows, notes=[meaning, *notes])


def left_out_table(study: StudyResult) -> Table:
    """Return what has no part in the figures, all of one reason together."""
    whats: dict[str, list[str]] = {}
    for each in study.left_out:
        whats.setdefault(each.reason, []).append(each.what)
    rows = [["; ".join(what), reason] for reason, what in whats.items()]
    return Table("left_out", "Left out", ["what", "why"], rows, left=2)


def _pairs_told(study: StudyResult) -> list[PairResult]:
    """Return the pairs that the verdict is about: of the first value of a setting, else those of
    the verdict's two.
    """
    if along := beside_first(study):
        return list(along[1].values())
    if (found := poles(study)) is None:
        return []
    ours = {found.first.key, found.second.key}
    shown = [pair for pair in study.pairs if pair.ranks == found.pair.ranks]
    return [pair for pair in shown if ours & {pair.first, pair.second}]


def study_lines(study: StudyResult) -> list[str]:
    """Return a study as the terminal shows it: accuracy, the pairs of the verdict's two, what is
    left out, and the verdict.
    """
    lines = []
    accuracy, cost = accuracy_table(study), cost_table(study)
    if accuracy.rows:
        shown = [cost.heads.index("core-seconds")]
        shown += [cost.heads.index("sent a sample")] * bool(study.over)
        rows = [
            [*row[:7], *(spent[place] for place in shown)]
            for row, spent in zip(accuracy.rows, cost.rows, strict=True)
        ]
        lines += text.table([*accuracy.heads[:7], *(cost.heads[place] for place in shown)], rows)
        lines += [f"  {note}" for note in cost.notes if note.startswith("*")]
    if pairs := _pairs_told(study):
        rows = [[*_pair(study, pair)[:5], said(study, pair)] for pair in pairs]
        heads = ["", "less", "points", "these images", "new images", ""]
        lines += ["", *text.table(heads, rows, left=(0, 1, 5))]
    if left_out := left_out_table(study).rows:
        lines += ["", *[f"  left out: {what}: {why}" for what, why in left_out]]
    return [*lines, "", *study_verdict(study)]
