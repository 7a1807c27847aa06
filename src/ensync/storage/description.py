"""What a dataset file holds, in plain text."""

from pathlib import Path

import numpy as np

from ensync.core.errors import plural, printable
from ensync.storage.layout import SPLITS, Layout

MOST_LINES = 40  # classes listed one by one


def describe(path: Path, found: Layout, counts: dict[str, np.ndarray]) -> str:
    """Return several lines about the file: what it is, rows per class and split, normalisation,
    provenance.
    """
    height, width, channels = found.shape
    total = sum(found.sizes.values())
    lines = [
        f"{path}: {found.texts['name']}",
        f"  {plural(total, 'image')}, {height} x {width} pixels, "
        f"{'grey' if channels == 1 else 'colour'}, {len(found.class_names)} classes, "
        f"{total * height * width * channels / 1e6:.1f} MB",
        "",
        *_table(found, counts),
        "",
        f"  mean of train     {_numbers(found.mean)}   (of 0..255, by channel)",
        f"  std of train      {_numbers(found.std)}",
        f"  source            {found.texts['source']}",
        f"  licence           {found.texts['licence']}",
        *(
            f"  checksum          {name}  {digest}"
            for name, digest in found.tables["checksums"].items()
        ),
        *(f"  note              {note}" for note in found.tables["notes"]),
        f"  prepared by       {found.texts['creator']}",
        "  preparation       "
        + ", ".join(
            f"{key} {value}"
            for key, value in found.tables["preparation"].items()
            if key != "program"
        ),
        f"  fingerprint       {found.fingerprint}",
    ]
    return "\n".join(map(printable, lines))


def _table(found: Layout, counts: dict[str, np.ndarray]) -> list[str]:
    names = found.class_names[:MOST_LINES]
    width = max(len(name) for name in [*names, "... and 65,536 more"])
    lines = [f"  {'class':<{width}}" + "".join(f"{split:>12}" for split in SPLITS)]
    for label, name in enumerate(names):
        lines.append(
            f"  {name:<{width}}" + "".join(f"{counts[split][label]:>12,}" for split in SPLITS)
        )
    if len(found.class_names) > MOST_LINES:
        lines.append(
            f"  {f'... and {len(found.class_names) - MOST_LINES:,} more':<{width}}"
            + "".join(f"{counts[s][MOST_LINES:].sum():>12,}" for s in SPLITS)
        )
    lines.append(f"  {'all':<{width}}" + "".join(f"{found.sizes[split]:>12,}" for split in SPLITS))
    return lines


def _numbers(values: np.ndarray) -> str:
    return "  ".join(f"{value:.4f}" for value in values)
