"""What the columns of a table of pictures are: asked for, named by a header, or guessed from the
values and said; refused in doubt.
"""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from math import isqrt, prod
from pathlib import Path

from ensync.core.errors import EnsyncError
from ensync.storage.sources.csv_lines import DELIMITERS, number
from ensync.storage.sources.csv_look import (
    LABEL_NAMES,
    Look,
    TableOptions,
    called,
    counts_up,
    look_at,
    mostly_numbers,
)
from ensync.storage.sources.csv_values import FEW, Values

LARGEST_SIDE = 65_536  # pixels
INDEX_NAMES = frozenset(["index", "idx", "id", "image_id", "imageid", "row"])
SHAPE = re.compile(r"(\d{1,5})x(\d{1,5})(?:x(\d{1,5}))?")
SAY = "say which with --label NAME or --label NUMBER (from 1; -1 is the last)"


@dataclass(frozen=True)
class Columns:
    """Which column is what, counted from 0; names: of the header, if there is one; text: the
    labels are words.
    """

    delimiter: bytes
    names: list[str] | None
    count: int
    label: int
    pixels: list[int]
    shape: tuple[int, int, int]
    planes: bool = False
    text: bool = False
    ended: bool = False
    left_out: list[str] = field(default_factory=list)

    def trim(self, line: bytes) -> bytes:
        """Return a line without the delimiter at its end, where every line has one."""
        return line.rstrip(b" ").removesuffix(self.delimiter) if self.ended else line

    def describe(self) -> str:
        """Return how the table is read, in words."""
        height, width, channels = self.shape
        order = (
            "planes of red, green and blue"
            if self.planes
            else "red, green and blue of each pixel together"
        )
        colour = "grey" if channels == 1 else f"colour, {order}"
        between = DELIMITERS.get(self.delimiter, f"'{self.delimiter.decode()}'")
        header = "no header" if self.names is None else "a header"
        words = " (words)" if self.text else ""
        parts = [
            f"{between} between columns",
            header,
            f"the label in {self.called(self.label)}{words}",
            *self.left_out,
            f"{height} x {width} pixels, {colour}",
        ]
        return ", ".join(parts)

    def called(self, place: int) -> str:
        """Return "column 3 ('class')"."""
        return called(place, self.names)


def picture_shape(pixels: int) -> tuple[int, int, int] | None:
    """Return (height, width, channels) of a square picture of so many values, grey or colour;
    None when there is none.
    """
    for channels in (1, 3):
        side = isqrt(max(pixels, 0) // channels)
        if side and side * side * channels == pixels:
            return side, side, channels
    return None


def find_columns(path: Path, options: TableOptions, like: Columns | None = None) -> Columns:
    """Return the columns of a table as given, named or guessed; `like`: those of the training
    table, for another of its kind.

    Errors: EnsyncError when it is no table of pictures, or the guess is doubtful, with the option
    that settles it.
    """
    look = look_at(path, options)
    if like is not None:
        return _like(look, like)
    left_out = _index_columns(look, options)
    label = _label(look, options, left_out)
    values = Values.of(look, label)
    if options.label is None:
        values.check(look)
    pixels = [place for place in range(look.columns) if place not in left_out and place != label]
    _check_order(look, pixels)
    shape, planes = _shape(look, options, len(pixels))
    if options.shape is None and shape[2] == 3:
        _check_planes(look, pixels, shape)
    said = [f"{called(place, look.names)} left out as an index" for place in left_out]
    return Columns(
        look.delimiter,
        look.names,
        look.columns,
        label,
        pixels,
        shape,
        planes,
        values.text,
        look.ended,
        said,
    )


def _index_columns(look: Look, options: TableOptions) -> list[int]:
    """Return the columns in front that only number the rows, as DataFrame.to_csv() writes one."""
    wanted = None if options.label is None else _given_label(look, options.label)
    found = []
    for place, name in enumerate(look.names or []):
        bare = not name or re.fullmatch(r"Unnamed: \d+(\.\d+)*", name) is not None
        if (
            place == wanted
            or not (bare or name.lower() in INDEX_NAMES)
            or not _distinct(look.column(place))
        ):
            break
        found.append(place)
    if (
        not look.names
        and wanted != 0
        and len(look.rows) >= FEW
        and picture_shape(look.columns - 1) is None
    ):
        values = [number(text) for text in look.column(0)]
        if (
            options.shape is None
            and picture_shape(look.columns - 2)
            and counts_up([-2 if v is None else v for v in values])
        ):
            found.append(0)
    return found


def _distinct(texts: list[bytes]) -> bool:
    return len(set(texts)) == len(texts)


def _label(look: Look, options: TableOptions, left_out: list[int]) -> int:
    """Return the label's column: as asked, named so, the only one of words, the only one with an
    odd name, or the first.
    """
    if options.label is not None:
        return _given_label(look, options.label)
    left = [place for place in range(look.columns) if place not in left_out]
    names = look.names or []
    for what, found in (
        (
            "named as labels are",
            [p for p in left if p < len(names) and names[p].lower() in LABEL_NAMES],
        ),
        ("of words", [p for p in left if look.column(p) and not mostly_numbers(look.column(p))]),
    ):
        if len(found) > 1:
            _check_points(look, found)
            listed = " and ".join(called(place, look.names) for place in found[:5])
            raise EnsyncError(
                f"{look.path} has {len(found)} columns {what}: {listed}",
                "one column of labels",
                f"{SAY}, and take the others out",
            )
        if found:
            return found[0]
    odd = _odd_name(names, left)
    if odd is not None:
        return odd
    _check_labelled(look, options, len(left))
    return _first_or_refused(look, left)


def _check_points(look: Look, columns: list[int]) -> None:
    """Refuse numbers with decimal commas."""
    text = look.column(columns[-1])[0]
    if re.fullmatch(rb"-?\d*,\d+", text):
        given = f"{look.path} has {text.decode()} in {called(columns[-1], look.names)}"
        raise EnsyncError(
            given,
            "numbers with a decimal point",
            "write the table with points, as pandas does with decimal='.'",
        )


def _given_label(look: Look, label: str) -> int:
    """Return the column of that name, or else of that number."""
    names = look.names or []
    found = [p for p, name in enumerate(names) if name == label] or [
        p for p, name in enumerate(names) if name.lower() == label.lower()
    ]
    if len(found) == 1:
        return found[0]
    if not found and re.fullmatch(r"-?[1-9]\d{0,8}", label) and abs(int(label)) <= look.columns:
        return int(label) - 1 if int(label) > 0 else look.columns + int(label)
    has = f"{look.columns} columns" + (
        f" ({', '.join(names[:3])}, ... {names[-1]})" if names else " without names"
    )
    raise EnsyncError(
        f"--label {label} for {look.path}, which has {has}",
        f"a name, or a number from 1 to {look.columns} or -1 to -{look.columns}",
        SAY,
    )


def _odd_name(names: list[str], left: list[int]) -> int | None:
    """Return the only column whose name is not made like the others' (pixel0, pixel1, ...), if
    there is one.
    """
    kinds = {place: re.sub(r"\d+", "#", names[place]) for place in left if place < len(names)}
    usual, times = Counter(kinds.values()).most_common(1)[0] if kinds else ("", 0)
    odd = [place for place, kind in kinds.items() if kind != usual]
    return odd[0] if len(odd) == 1 and times > 1 and "#" in usual else None


def _check_labelled(look: Look, options: TableOptions, left: int) -> None:
    """Refuse a table whose columns are just a picture."""
    whole = (
        left == prod(_parsed(options.shape))
        if options.shape
        else picture_shape(left) and not picture_shape(left - 1)
    )
    if whole:
        what = f"{look.path} has {left} columns, which are a picture and no label"
        raise EnsyncError(
            what,
            "a label in each row",
            "add the column of labels; without labels nothing can be trained or tested",
        )


def _first_or_refused(look: Look, left: list[int]) -> int:
    """Return the first column as the label's, unless its values, or those of the last one, speak
    against it.
    """
    first, last = Values.of(look, left[0]), Values.of(look, left[-1])
    as_a_pixel = [
        len(left) > 2 and end.numbers() == Values.of(look, beside).numbers()
        for end, beside in ((first, left[1]), (last, left[-2]))
    ]
    if first.possible() and (not last.strong() or as_a_pixel == [False, True]):
        return left[0]
    tell = (
        f"{called(left[0], look.names)} has {first} and {called(left[-1], look.names)} has {last}"
    )
    raise EnsyncError(
        f"no name tells the label's column of {look.path}, and {tell}",
        "one column that can only be the labels",
        SAY,
    )


def _parsed(shape: str) -> tuple[int, ...]:
    match = SHAPE.fullmatch(shape.lower())
    sides = tuple(int(side) for side in match.groups() if side) if match else ()
    if (
        not sides
        or not all(0 < side <= LARGEST_SIDE for side in sides)
        or (len(sides) == 3 and not {sides[0], sides[2]} & {1, 3})
    ):
        raise EnsyncError(
            f"--shape {shape}",
            "HEIGHTxWIDTH, HEIGHTxWIDTHx3 or 3xHEIGHTxWIDTH",
            "write for example --shape 28x28",
        )
    return sides


def _shape(look: Look, options: TableOptions, pixels: int) -> tuple[tuple[int, int, int], bool]:
    """Return (height, width, channels), and whether planes of one colour follow each other."""
    if options.shape is not None:
        sides = _parsed(options.shape)
        if prod(sides) != pixels:
            raise EnsyncError(
                f"--shape {options.shape} has {prod(sides)} values and {look.path} {pixels} "
                "columns of pixels",
                "as many",
                "correct --shape or --label",
            )
        if len(sides) == 2:
            return (*sides, 1), False
        planes = sides[2] not in (1, 3)
        return (
            (sides[1], sides[2], sides[0]) if planes else (sides[0], sides[1], sides[2])
        ), planes
    found = picture_shape(pixels)
    if found is None:
        raise _no_shape(look, pixels)
    return found, False


def _check_order(look: Look, pixels: list[int]) -> None:
    """Refuse pixel columns whose names carry numbers (pixel0, pixel1, pixel10, pixel2 ...) that
    do not ascend.
    """
    names = (
        [look.names[place] for place in pixels]
        if look.names and len(look.names) == look.columns
        else []
    )
    places = [tuple(map(int, re.findall(r"\d+", name))) for name in names]
    if len({re.sub(r"\d+", "#", name) for name in names}) != 1 or not all(places):
        return
    wrong = next(
        (place for place in range(1, len(places)) if places[place] <= places[place - 1]), None
    )
    if wrong is not None:
        given = (
            f"the pixel columns of {look.path} are not in order: '{names[wrong]}' comes "
            f"after '{names[wrong - 1]}'"
        )
        raise EnsyncError(
            given, "pixels row by row, left to right", "sort the columns by their numbers"
        )


def _check_planes(look: Look, pixels: list[int], shape: tuple[int, int, int]) -> None:
    """Refuse pixel columns named colour by colour (r0, r1 ... g0 ... b0 ...), which are planes."""
    if not look.names or len(look.names) != look.columns:
        return
    names = [re.sub(r"\d+", "#", look.names[place]) for place in pixels]
    size = len(pixels) // 3
    planes = [name for name in names[::size] for _ in range(size)]
    if size > 1 and len(set(names)) == 3 and names == planes:
        first, second = (called(pixels[n * size], look.names) for n in (0, 1))
        given = f"{look.path} has all columns like {first} before those like {second}"
        expected = "red, green and blue of each pixel together, or planes that are said to be such"
        raise EnsyncError(given, expected, f"give --shape 3x{shape[0]}x{shape[1]} for planes")


def _no_shape(look: Look, pixels: int) -> EnsyncError:
    given = (
        f"{look.path} has {look.columns} columns "
        f"({DELIMITERS.get(look.delimiter, 'delimiters')} between)"
    )
    if picture_shape(pixels - 1):
        given += ", one too many for a label and a square picture"
    side = next((side for side in range(isqrt(max(pixels, 1)), 0, -1) if pixels % side == 0), 0)
    such = f", such as --shape {pixels // side}x{side}" if side > 1 else ""
    return EnsyncError(
        given,
        "a label and N*N or N*N*3 pixels, such as 785 columns",
        f"give --shape HEIGHTxWIDTH or HEIGHTxWIDTHx3 for other pictures{such}, --delimiter for "
        "another one, and take out what is neither label nor pixel",
    )


def _like(look: Look, like: Columns) -> Columns:
    """Return the training table's columns for another table, whose header must agree."""
    if (
        look.columns == like.count - 1
        and picture_shape(look.columns - len(like.left_out)) == like.shape
    ):
        given = (
            f"{look.path} has {look.columns} columns where the training table has "
            f"{like.count}: it seems to lack the labels"
        )
        raise EnsyncError(given, "the same columns", "add the labels, or move that file away")
    label, pixels = like.label, like.pixels
    if look.names and like.names and look.columns == like.count and look.names != like.names:
        theirs = {name: place for place, name in enumerate(look.names)}
        wanted = [like.names[place] for place in pixels]
        named = like.names[label]
        if named not in theirs or [name for name in look.names if name in set(wanted)] != wanted:
            raise EnsyncError(
                f"{look.path} has other columns than the training table, or in another order",
                "the same",
                "write both alike",
            )
        label, pixels = theirs[named], [theirs[name] for name in wanted]
    return replace(
        like,
        delimiter=look.delimiter,
        names=look.names,
        label=label,
        pixels=pixels,
        ended=look.ended,
    )
