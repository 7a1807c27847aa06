"""Names of files and folders in sentences, and names that a reader could not tell apart."""

import os
import unicodedata
from contextlib import suppress
from pathlib import Path

LONGEST_NAME, LONGEST_TEXT = 120, 400  # characters of a name in a sentence, and of several together


def shown(name: str) -> str:
    """Return a name for a sentence: what cannot be printed as escapes, and not too long."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return short(text, LONGEST_NAME)


def short(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return the text, cut where it is too long: a dataset has room for so many of them."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def alike(name: str) -> str:
    """Return what names have in common that differ only in capitals or in their Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def replicas(names: list[str]) -> list[tuple[str, str]]:
    """Return the pairs of `names` (sorted) that look alike, each with the first of its kind."""
    first: dict[str, str] = {}
    return [
        (first[key], name) for name in names if first.setdefault(key := alike(name), name) != name
    ]


def resembling(path: Path) -> str:
    """Return ", but 'Cafe\\u0301' is there" when a missing path has such a neighbour, else ""."""
    with suppress(OSError):
        missing = next(
            (
                part
                for part in (path, *path.parents)
                if not os.path.lexists(part) and part.parent.is_dir()
            ),
            path,
        )
        for name in sorted(os.listdir(missing.parent)):
            if alike(name) == alike(missing.name):
                return f", but {name!a} is there"
    return ""
