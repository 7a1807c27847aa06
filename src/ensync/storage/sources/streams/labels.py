"""Labels as archives and tables hold them: numbers or words, and the classes that they name."""

from collections.abc import Iterable, Mapping, Sequence

from ensync.core.errors import EnsyncError
from ensync.storage.sources.names import shown
from ensync.storage.sources.source import first_few

LABEL_NAMES = ("label", "labels", "cls", "class", "target", "y")
NO_LABEL = "has no label"

Label = int | str | None  # None where there is none


def read_label(text: str) -> Label:
    """Return the label that a text is: a whole number, a word, None of nothing."""
    text = text.strip()
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 10:
        return int(text)
    return text or None


def classes_of(
    place: str, labels: Mapping[str, Sequence[Label]], names: Sequence[str] | None = None
) -> tuple[list[str], dict[str, list[int]]]:
    """Return the names of the classes, and the class of each row by split, 0 for rows without.

    names: of the labels 0, 1, ..., where the source gives them; else numbers and words name
    themselves, in ascending order. Errors: EnsyncError for labels that cannot be told apart.
    """
    found = {label for of in labels.values() for label in of if label is not None}
    numbers = sorted(label for label in found if isinstance(label, int))
    words = sorted(label for label in found if isinstance(label, str))
    if numbers and words:
        raise EnsyncError(
            f"{place}: some labels are numbers ({numbers[0]}) and others words "
            f"('{shown(words[0])}')",
            "one kind of labels",
            "correct the labels",
        )
    if names is not None and not words:
        return list(names), _numbers(place, labels, names)
    _check_words(place, words)
    known: list[Label] = [*numbers, *words]
    place_of = {label: number for number, label in enumerate(known)}
    return [str(label) for label in known], {
        split: [place_of.get(label, 0) for label in of] for split, of in labels.items()
    }


def _numbers(
    place: str, labels: Mapping[str, Sequence[Label]], names: Sequence[str]
) -> dict[str, list[int]]:
    """Return numbers of named classes. Errors: EnsyncError for one that has no name."""
    _check_words(place, names)
    for split, of in labels.items():
        for label in of:
            if isinstance(label, int) and not 0 <= label < len(names):
                given = f"{place}: a {split} row has the label {label}"
                hint = " (hubs write -1 where labels are kept secret)" if label == -1 else ""
                raise EnsyncError(
                    f"{given}{hint}, and there are {len(names)} class names",
                    "a name for each label",
                    "correct the labels, or leave that split out, such as with "
                    "--from 'DIR/{train,validation}-*'",
                )
    return {
        split: [one if isinstance(one, int) else 0 for one in of] for split, of in labels.items()
    }


def _check_words(place: str, words: Iterable[str]) -> None:
    wrong = [word for word in words if not word or not word.isprintable()]
    if wrong:
        raise EnsyncError(
            f"{place} has the class name {wrong[0][:40]!a}",
            "names that can be printed",
            "correct the labels",
        )


def only_one(place: str, what: str, candidates: Sequence[str], option: str) -> str:
    """Return the only candidate. Errors: EnsyncError, naming them, where there is another number
    of them.
    """
    if len(candidates) == 1:
        return candidates[0]
    names = first_few([shown(name) for name in candidates], len(candidates))
    raise EnsyncError(
        f"{place} has {f'{len(candidates)} {what} ({names})' if candidates else f'no {what}'}",
        "one",
        f"say which with {option}" if candidates else f"check --from, or say which with {option}",
    )
