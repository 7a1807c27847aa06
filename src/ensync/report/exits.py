"""The table of a network with exits: accuracy against the arithmetic of an image."""

from collections.abc import Sequence

from ensync.report import text
from ensync.report.results import ExitFigures


def exit_lines(rows: Sequence[ExitFigures]) -> list[str]:
    """Return accuracy and mean multiply-adds of an image for each confidence at which images may
    leave, and which share of them leaves where; nothing without exits.
    """
    if not rows:
        return []
    places = len(rows[0].shares)
    whole = max(row.multiply_adds for row in rows)
    heads = ["leave from", "accuracy", "multiply-adds", "of all"]
    heads += [f"at exit {place}" for place in range(1, places)] + ["at the end"]
    cells = [
        [
            "never" if row.threshold is None else f"{row.threshold:g}",
            text.percent(row.accuracy),
            text.count(round(row.multiply_adds)),
            text.percent(row.multiply_adds / whole, 1),
            *(text.percent(share, 1) for share in row.shares),
        ]
        for row in rows
    ]
    return [
        "Exits: accuracy and arithmetic of an image by the confidence from which images leave",
        *text.table(heads, cells),
    ]
