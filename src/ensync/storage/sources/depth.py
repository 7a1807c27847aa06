"""Pictures of more than 8 bits: which values are black and white, by the file or by the user.

    unsigned integers of n bits     0 and 2^n - 1 (BitsPerSample of TIFF, IHDR of PNG, maxval of
    PPM) with SMin-, SMaxSampleValue     those two (TIFF), when all pictures declare the same;
                                    where they differ they are statistics of one picture
    floats, signed integers         nothing else declares it: refused without --range
PNG's sBIT says how many bits the camera had, not another white: values are scaled to all 16 bits
(https://www.w3.org/TR/png-3/#11sBIT).
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile

from ensync.core.errors import EnsyncError
from ensync.storage.sources.source import first_few

UNSIGNED, SIGNED, FLOATING = 1, 2, 3  # TIFF's SampleFormat
BITS, PHOTOMETRIC, FORMAT, LOWEST, HIGHEST = 258, 262, 339, 340, 341  # tags of TIFF
WHITE_IS_ZERO = 0
UNDECLARED = "does not say which values are black and white"
STRIP = 1 << 20  # pixels scaled at a time
DARK = 4  # pictures that use less than this part of what they declare were made with fewer bits

Values = tuple[float, float]  # black, white


class Unfit(Exception):
    """What is wrong with a picture, in the words that follow its name."""


class Samples(NamedTuple):
    """How a file stores its samples.

    values: black and white, None when nothing says it; tagged: by SMin- and SMaxSampleValue.
    """

    bits: int
    values: Values | None
    kind: int = UNSIGNED
    tagged: bool = False
    inverted: bool = False


class Depth(NamedTuple):
    """What a deep picture declares, its largest value, and whether some lie outside.

    colours: the largest is of colours, of which the upper 8 bits are read.
    """

    bits: int
    values: Values
    tagged: bool
    largest: float
    outside: bool
    colours: bool = False


def samples_of(image: ImageFile.ImageFile) -> Samples | None:
    """Return how an opened picture, not yet loaded, stores its samples; None for 8 bits."""
    tags: Any = getattr(image, "tag_v2", {})
    raw = str(image.tile[0].args if image.tile else "")
    deep = image.mode.startswith("I") or ";16" in raw
    bits = min(32, int(_number(tags.get(BITS)) or (16 if deep else 32 if image.mode == "F" else 8)))
    kind = FLOATING if image.mode == "F" else int(_number(tags.get(FORMAT)) or UNSIGNED)
    if bits <= 8 and kind == UNSIGNED:
        return None
    lowest, highest = _number(tags.get(LOWEST)), _number(tags.get(HIGHEST))
    inverted = _number(tags.get(PHOTOMETRIC)) == WHITE_IS_ZERO
    if highest is not None and (lowest or 0) < highest:
        return Samples(bits, (lowest or 0, highest), kind, tagged=True, inverted=inverted)
    return Samples(bits, (0, 2**bits - 1) if kind == UNSIGNED else None, kind, inverted=inverted)


def _number(value: Any) -> float | None:
    """Return the first number of a tag, None when it has none."""
    try:
        number = float(value[0] if isinstance(value, tuple) else value)
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def eight_bits(
    image: Image.Image, samples: Samples, asked: Values | None
) -> tuple[Image.Image, Depth]:
    """Return a loaded picture with 8 bits, black 0 and white 255, and what was found in it.

    asked: the user's black and white, which go before what the file declares. Errors: Unfit when
    nothing says what they are.
    """
    if len(image.getbands()) > 1:
        return image, _depth_of_colours(image, samples, asked)
    array = _array(image, samples)
    values = asked or samples.values
    smallest, largest = float(array.min()), float(array.max())
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        raise Unfit("holds values that are no numbers")
    if values is None:
        kind = "floats" if samples.kind == FLOATING else "signed integers"
        raise Unfit(f"holds {kind} ({smallest:g} to {largest:g}) and {UNDECLARED}")
    depth = Depth(
        samples.bits,
        values,
        samples.tagged and asked is None,
        largest,
        smallest < values[0] or largest > values[1],
    )
    scaled = _scaled(array, samples, values)
    picture = Image.fromarray(255 - scaled if samples.inverted else scaled)
    if (key := image.info.get("transparency")) is not None:  # of PNG, in units of 16 bits
        picture.putalpha(Image.fromarray(np.where(array == key, 0, 255).astype(np.uint8)))
    return picture, depth


def _array(image: Image.Image, samples: Samples) -> np.ndarray:
    array = np.asarray(image)
    if samples.bits == 32 and samples.kind == UNSIGNED:
        return array.view(np.uint32)
    return array.view(np.int8) if samples.bits == 8 else array


def _scaled(array: np.ndarray, samples: Samples, values: Values) -> np.ndarray:
    """Return uint8: the upper 8 of the declared bits, or a straight line from black to white."""
    if values == (0, 2**samples.bits - 1) and samples.kind == UNSIGNED:
        return (array >> (samples.bits - 8)).astype(np.uint8)
    (black, white), out = values, np.empty(array.shape, np.uint8)
    rows = max(1, STRIP // array.shape[1])
    for start in range(0, len(array), rows):
        strip = array[start : start + rows].astype(np.float64)
        out[start : start + rows] = np.rint(
            (strip.clip(black, white) - black) * (255 / (white - black))
        )
    return out


def _depth_of_colours(image: Image.Image, samples: Samples, asked: Values | None) -> Depth:
    """Return the depth of a picture in colours, of whose 16 bits Pillow hands out the upper 8."""
    if samples.kind != UNSIGNED:
        raise Unfit(
            "holds colours that are not unsigned integers, which are not read: convert it to 8 bits"
        )
    if asked is not None:
        raise Unfit(
            "has more than 8 bits in each colour, of which only the upper 8 are read, so that no "
            "range"
            " can be given: convert it to 8 bits"
        )
    colours = np.asarray(image)[..., :3]
    largest = 65_535 if image.mode == "CMYK" else int(colours.max()) * 256 + 255
    return Depth(16, (0, 65_535), False, largest, False, colours=True)


def check_depths(
    depths: Iterable[tuple[str, Depth]], trained: Values | None, dark: bool, action: str
) -> Values | None:
    """Return what all tagged pictures declare; refuse what is hardly meant.

    Such are SMin- and SMaxSampleValue that differ from picture to picture (each would be stretched
    in its own way) or from those of the `trained` ones; and, unless `dark` ones are known to be
    right, values that stay below a quarter of what all of one depth declare: 12 bits in files of 16
    would be almost black. Errors: EnsyncError, naming files; `action` says what to do.
    """
    by_bits: dict[int, tuple[float, str, bool]] = {}
    by_tags: dict[Values, str] = {trained: "the training pictures"} if trained else {}
    for name, depth in depths:
        if depth.tagged:
            by_tags.setdefault(depth.values, name)
        elif depth.values == (0, 2**depth.bits - 1):
            by_bits[depth.bits] = max(
                by_bits.get(depth.bits, (-1.0, "", False)),
                (depth.largest, name, depth.colours),
                key=lambda seen: seen[0],
            )
    for bits, (largest, name, colours) in by_bits.items():
        if largest < 2**bits // DARK and not dark:
            likely = 2 ** max(1, math.ceil(math.log2(largest + 1))) - 1
            what = (
                f"no picture of {bits} bits holds a value above {largest:.0f} (in {name}):"
                f" they seem to be of fewer bits, 0 to {likely}"
            )
            do = "convert the pictures to 8 bits" if colours else action  # whose range is fixed
            raise EnsyncError(what, f"values up to {2**bits - 1}, as the files declare", do)
    if len(by_tags) > 1:
        named = [f"{black:g} to {white:g} in {name}" for (black, white), name in by_tags.items()]
        what = (
            f"pictures declare different values for black and white: {first_few(named, len(named))}"
        )
        raise EnsyncError(what, "one rule for all", action)
    return next(iter(by_tags), None)
