"""One picture file -> an image: 8 bits, over a ground, upright, its centre, resized.

Profiles (ICC) and gamma are not applied: values are taken as they are stored.
"""

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageFile, ImageOps, UnidentifiedImageError

from ensync.core.errors import EnsyncError, reason
from ensync.storage.sources.depth import Depth, Unfit, Values, eight_bits, samples_of

FORMATS = (
    "PNG",
    "JPEG",
    "BMP",
    "GIF",
    "TIFF",
    "WEBP",
    "PPM",
)  # of the others Pillow knows, some start other programs
LARGEST = 50_000_000  # pixels to decode (JPEG: after its detail is skipped): memory must hold them
STRIP = 1 << 20  # pixels composed at a time
ORIENTATION = 0x0112  # EXIF's tag
TURNS = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        2,
    )
)
GREY_STEPS = {
    "L;2": 85,
    "L;4": 17,
}  # between neighbouring values of PNG's grey with fewer bits, once they are 0..255
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
POINTERS = (
    b"version https://git-lfs",
    b"/annex/objects/",
)  # what stands in files whose data was not fetched
AS_DECLARED = "as declared"

logging.getLogger("PIL").addHandler(
    logging.NullHandler()
)  # what matters comes back as a problem of the picture


class Recipe(NamedTuple):
    """How pictures become images; a dataset records it, so that `predict` does the same.

    background: "#rrggbb", behind transparent pixels; values: black and white of pictures of more
    than 8 bits, None as each declares; deep: whether training pictures had more than 8 bits;
    tagged: what SMin- and SMaxSampleValue of theirs declare, if they do; greyscale: one channel.
    """

    background: str = "#ffffff"
    values: Values | None = None
    deep: bool = False
    tagged: Values | None = None
    greyscale: bool = False

    @property
    def channels(self) -> int:
        """How many channels an image has."""
        return 1 if self.greyscale else 3

    def recorded(self) -> dict[str, float | int | str]:
        """Return what a dataset says of it."""
        ways = {"orientation": "EXIF", "crop": "centre", "resize": "bilinear"}
        tagged = {"tagged": _text(self.tagged)} if self.tagged else {}
        return {
            "background": self.background,
            "values": _text(self.values),
            **tagged,
            "deep": int(self.deep),
            **ways,
        }


def recipe(
    background: str | None = None, values: str | None = None, greyscale: bool = False
) -> Recipe:
    """Return the recipe that --background, --range and --greyscale ask for. Errors: EnsyncError."""
    return Recipe(
        _colour(background or "white"), _values(values or AS_DECLARED), greyscale=greyscale
    )


def recorded_recipe(preparation: Mapping[str, object]) -> Recipe:
    """Return the recipe that a dataset or checkpoint records, the usual one where it records none.
    Errors: EnsyncError when it is damaged."""
    values, tagged = (
        _values(str(preparation.get(key, AS_DECLARED))) for key in ("values", "tagged")
    )
    return Recipe(
        _colour(str(preparation.get("background", "white"))),
        values,
        bool(preparation.get("deep")),
        tagged,
    )


def _text(values: Values | None) -> str:
    return AS_DECLARED if values is None else f"{values[0]:.17g},{values[1]:.17g}"


def _colour(text: str) -> str:
    colour: tuple[int, ...] = ()
    with suppress(ValueError):
        colour = ImageColor.getrgb(text)
    if len(colour) != 3:
        raise EnsyncError(
            f"--background {text}",
            "an opaque colour, such as white, black or #80ff00",
            "choose another",
        )
    return "#" + bytes(min(value, 255) for value in colour).hex()


def _values(text: str) -> Values | None:
    if text == AS_DECLARED:
        return None
    try:
        black, white = map(float, text.split(","))
    except ValueError:
        black = white = 0.0
    if not (black < white and np.isfinite((black, white, white - black)).all()):
        raise EnsyncError(
            f"--range {text}",
            "the values of black and white, the smaller first, such as 0,1 or 0,4095",
            "give two numbers",
        )
    return black, white


class Decoded(NamedTuple):
    """What became of a picture: pixels uint8 (height, width, 1 or 3), or what is wrong."""

    pixels: np.ndarray | None = None
    problem: str = ""
    transparent: bool = False  # some pixels were not opaque
    frames: bool = False  # there are others beside the first
    depth: Depth | None = None  # of pictures of more than 8 bits
    side: int = 0  # pixels of the shorter side, as stored


def decode(path: Path, shape: tuple[int, ...], how: Recipe) -> Decoded:
    """Return the picture in `shape` (height, width, 1 or 3), or what is wrong with the file."""
    try:
        if not path.is_file():
            return Decoded(
                problem="links to nothing: was its data fetched?"
                if path.is_symlink()
                else "is not a file"
            )
        with path.open("rb") as file:
            return decode_stream(file, shape, how)
    except OSError as error:
        return Decoded(problem=f"cannot be read because {reason(error)}")


def decode_stream(file: BinaryIO, shape: tuple[int, ...], how: Recipe) -> Decoded:
    """Return the picture that a stream of bytes holds, as `decode` does."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            return _decode(image, shape, how)
    except Unfit as unfit:
        return Decoded(problem=str(unfit))
    except Image.DecompressionBombError:
        return Decoded(problem=f"declares more than {LARGEST:,} pixels")
    except MemoryError:
        return Decoded(problem="needs more memory than there is")
    except UnidentifiedImageError:
        return Decoded(problem=_not_a_picture(file))
    except Exception as error:  # decoders of broken files raise what they stumble on
        if isinstance(error, OSError) and error.errno:
            return Decoded(problem=f"cannot be read because {reason(error)}")
        return Decoded(problem=f"cannot be decoded ({type(error).__name__}: {_plain(str(error))})")


def _decode(image: ImageFile.ImageFile, shape: tuple[int, ...], how: Recipe) -> Decoded:
    height, width, channels = shape
    side = min(image.size)
    mode = "L" if channels == 1 else "RGB"
    image.draft(mode, (2 * max(height, width),) * 2)  # JPEG may skip detail beyond twice the size
    if image.width * image.height > LARGEST:
        raise Unfit(f"declares {image.width} x {image.height} pixels, more than {LARGEST:,}")
    frames = image.format != "MPO" and _has_frames(
        image
    )  # a phone's JPEG holds one picture, and another view of it
    samples, raw = samples_of(image), str(image.tile[0].args if image.tile else "")
    image.load()
    if image.mode == "LAB":
        raise Unfit("has the colours of CIE LAB, which are not converted here: save it as RGB")
    turn = _turn(image)
    picture, depth = eight_bits(image, samples, how.values) if samples else (image, None)
    picture, transparent = _opaque(picture, raw, how.background)
    picture = picture if picture.mode == mode else picture.convert(mode)
    picture = picture.transpose(turn) if turn is not None else picture
    pixels = np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)).reshape(
        shape
    )
    return Decoded(pixels, "", transparent, frames, depth, side)


def _has_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a broken second frame is one, and no reason to lose the first
        image.seek(0)
        return True


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return what makes the loaded picture upright; a broken EXIF note is no reason to lose it."""
    with suppress(Exception):  # a broken note raises as many types as a broken picture
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    return None


def _opaque(image: Image.Image, raw: str, background: str) -> tuple[Image.Image, bool]:
    """Return the picture over the background, and whether any of it can be seen."""
    if (
        "transparency" not in image.info
        and "A" not in (bands := image.getbands())
        and "a" not in bands
    ):
        return image, False
    _scale_key(image, raw)
    out, transparent = Image.new("RGB", image.size), False
    rows = max(1, STRIP // image.width)
    for top in range(
        0, image.height, rows
    ):  # four bytes a pixel less to hold for each step of the way
        strip = image.crop((0, top, image.width, min(image.height, top + rows)))
        rgba = (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")
        transparent = transparent or rgba.getchannel("A").getextrema() != (255, 255)
        out.paste(
            Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba).convert("RGB"),
            (0, top),
        )
    return out, transparent


def _scale_key(image: Image.Image, raw: str) -> None:
    """Bring PNG's transparent value from the file's bits to the 8 of the pixels."""
    key = image.info.get("transparency")
    if raw in GREY_STEPS and isinstance(key, int):
        image.info["transparency"] = key * GREY_STEPS[raw]
    elif raw == "RGB;16B" and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _not_a_picture(file: BinaryIO) -> str:
    """Return what is wrong with a file that no decoder knows."""
    with suppress(OSError, ValueError):  # one that is closed
        file.seek(0)
        head = file.read(64)
        if not head:
            return "is empty (0 bytes)"
        if head.startswith(POINTERS):
            return "is a pointer to data that was not fetched"
        if head.startswith(TIFFS):
            return (
                "is a damaged TIFF, or one of samples that are not read: convert it to 8 or 16 bits"
            )
        if head[4:8] == b"ftyp":
            return "is HEIC, AVIF or a film, which are not read: convert it to JPEG or PNG"
        return f"cannot be decoded: its content is none of {', '.join(FORMATS)}"
    return "cannot be read"


def _plain(text: str) -> str:
    """Return the first line of a decoder's message without the names of Python objects in it."""
    return re.sub(r"<[^>]*>", "the file", text).split("\n")[0][:200] or "no reason given"
