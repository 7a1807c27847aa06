"""The files that a dataset is published in: one, a directory of them, or a pattern.

train-{000..012}.tar, train-*.parquet       braces and wildcards; quote them from the shell
train-00000-of-00004.parquet, test-...      splits by a word of the name, as dataset hubs do
"""

import glob
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path

from ensync.core.errors import EnsyncError
from ensync.storage.sources.class_folders import SPLIT_NAMES
from ensync.storage.sources.names import resembling, shown
from ensync.storage.sources.source import first_few, named_errors, regular_file

MOST_FILES = 100_000  # that a pattern may stand for
MOST_SUMS = 20  # that are kept one by one
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
NUMBERED = re.compile(r"(.*?)(\d+)-of-(\d+)(.*)")

Shards = dict[str, list[Path]]


def find_shards(given: Path, endings: tuple[str, ...]) -> Shards:
    """Return the files of each split, "train" among them, in the order of their names.

    endings: of files that count in a directory. Errors: EnsyncError where none or some are missing,
    and where it is doubtful which split a file is of.
    """
    files = _files(given, endings)
    _check_numbers(files)
    return _by_split(given, files)


def _files(given: Path, endings: tuple[str, ...]) -> list[Path]:
    if not given.exists() and any(mark in str(given) for mark in "{*?["):
        return _matching(str(given))
    with named_errors(given):
        if not given.is_dir():
            return [regular_file(given)]
        found = [f for f in given.iterdir() if _counts(f, endings)]
        found = found or [f for f in given.rglob("*") if _counts(f, endings)]
    if not found:
        raise EnsyncError(
            f"{given} has no file ending in {' or '.join(endings)}",
            "a file, a directory of such files, or a pattern",
            "check --from",
        )
    return [regular_file(file) for file in sorted(found)]


def _counts(file: Path, endings: tuple[str, ...]) -> bool:
    return file.name.lower().endswith(endings) and not file.name.startswith(".")


def _matching(pattern: str) -> list[Path]:
    """Return the files that a pattern stands for: each way to fill its braces must be there."""
    found: list[Path] = []
    missing = []
    for text in _filled(pattern):
        wild = any(mark in text for mark in "*?[")
        matches = sorted(map(Path, glob.glob(text))) if wild else [Path(text)]
        missing += [text] if not matches or not all(match.exists() for match in matches) else []
        found += matches
    if missing:
        raise EnsyncError(
            f"{pattern} stands for {first_few([shown(text) for text in missing], len(missing))},"
            f" which {'is' if len(missing) == 1 else 'are'} not there"
            + (resembling(Path(missing[0])) if len(missing) == 1 else ""),
            "files that are there",
            "check --from, and quote patterns so that the shell leaves them alone",
        )
    return [regular_file(file) for file in dict.fromkeys(found)]


def _filled(pattern: str) -> list[str]:
    """Return a pattern with its braces filled in all ways: {0..2} and {a,b}."""
    choices = [_choices(inner) for inner in BRACES.findall(pattern)]
    count = 1
    for each in choices:
        count *= len(each)
    if count > MOST_FILES:
        raise EnsyncError(
            f"{pattern} stands for {count:,} files", f"at most {MOST_FILES:,}", "check --from"
        )
    texts = BRACES.split(pattern)[::2]
    return [
        "".join(part for pair in zip(texts, [*filling, ""]) for part in pair)
        for filling in product(*choices)
    ]


def _choices(inner: str) -> list[str]:
    if not (found := RANGE.fullmatch(inner)):
        return inner.split(",")
    first, last = found.groups()
    numbers = range(int(first), min(int(last), int(first) + MOST_FILES) + 1)
    return [f"{number:0{len(first)}}" for number in numbers]


def _check_numbers(files: list[Path]) -> None:
    """Raise EnsyncError when of files called ...-00001-of-00004 some are missing."""
    names = {file.name for file in files}
    for file in files:
        if not (found := NUMBERED.fullmatch(file.name)):
            continue
        before, number, count, after = found.groups()
        if int(count) > MOST_FILES or int(number) >= int(count):
            continue
        # others may differ behind the count: hubs put a sum there
        there = {
            int(other[2])
            for name in names
            if (other := NUMBERED.fullmatch(name)) and other[1] == before and other[3] == count
        }
        lacking = [
            f"{before}{n:0{len(number)}}-of-{count}" for n in range(int(count)) if n not in there
        ]
        if lacking:
            raise EnsyncError(
                f"{shown(file.name)} is one of {int(count)} files, of which are missing: "
                + first_few(lacking, len(lacking)),
                "all of them",
                "fetch the others, too, or rename the files if these are all",
            )


def _by_split(given: Path, files: list[Path]) -> Shards:
    base = given if given.is_dir() else given.parent
    splits: Shards = {}
    unnamed = []
    for file in files:
        inside = file.relative_to(base) if file.is_relative_to(base) else Path(file.name)
        found = split_of(str(inside))
        if len(found) > 1:
            raise EnsyncError(
                f"{file} could be of {' or '.join(found)} by its name",
                "a name with one of train, val, test",
                "rename it, or give another file or pattern with --from",
            )
        if found:
            splits.setdefault(found[0], []).append(file)
        else:
            unnamed.append(file)
    if unnamed and len(splits) > 0:
        raise EnsyncError(
            f"{unnamed[0]} has none of train, val, test in its name, and others have",
            "files of which all say their split, or none",
            "rename it, or give another pattern with --from",
        )
    if len(splits) == 1 and len(files) == 1:  # one file alone is the whole dataset
        return {"train": files}
    if splits and "train" not in splits:
        raise EnsyncError(
            f"{given} has files of {' and '.join(splits)} and none of train",
            "training images",
            "add them, or rename the files",
        )
    return {split: splits[split] for split in SPLIT_NAMES if split in splits} or {"train": unnamed}


def split_of(name: str) -> list[str]:
    """Return the splits that words of a path tell."""
    words = re.split(r"[/_\-. ]", name.lower())
    return [split for split, known in SPLIT_NAMES.items() if any(word in known for word in words)]


def names_of(files: Iterable[Path]) -> dict[Path, str]:
    """Return the name of each file for sentences, behind its directory's where it is not the only
    one.
    """
    files = list(files)
    counts = Counter(file.name for file in files)
    return {
        file: shown(file.name if counts[file.name] == 1 else f"{file.parent.name}/{file.name}")
        for file in files
    }


def few_sums(sums: Mapping[str, str]) -> dict[str, str]:
    """Return the checksums of files by name, of many files one over all names and sums: a dataset
    file has no room for thousands.
    """
    if len(sums) <= MOST_SUMS:
        return dict(sums)
    lines = "".join(f"{name} {sum}\n" for name, sum in sums.items())
    return {f"{len(sums):,} files": f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"}


def listing_of(shards: Shards) -> str:
    """Return a sum of the names and lengths of files, in their order."""
    lines = [
        f"{split} {file.name} {file.stat().st_size}\n"
        for split, files in shards.items()
        for file in files
    ]
    text = "".join(lines).encode(errors="surrogateescape")
    return hashlib.sha256(text).hexdigest()
