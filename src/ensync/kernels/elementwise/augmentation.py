"""Random changes of training images. A key and an image's number in the dataset decide them alone.

Each output pixel is traced back to the source, in the order of Keras' ImageDataGenerator: mirror,
shift by whole pixels within a frame (crop), shift by any distance, turn about the centre. There it
is interpolated between four pixels; beyond the edge the edge's pixels are repeated. The frame is of
zeros, or it reflects the image without its outermost pixels, as PyTorch's `pad(mode="reflect")`.
Where the output is a smaller part of the image, the shift by whole pixels leads to its place, too.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from ensync.kernels.elementwise.dropout import mix32, row_words
from ensync.kernels.options import INNER, KERNEL

# Columns of a table of changes. CROP_Y and CROP_X are the place in the image of the first row and
# column of the output; RED and the two behind it are added to the pixels of three channels.
COLUMNS = 14
FLIP, CROP_Y, CROP_X, SHIFT_Y, SHIFT_X, SINE, COSINE, TOP, BOTTOM, LEFT, RIGHT, RED = range(12)
# Random erasing: least and largest share of the area, least ratio of the sides.
SMALL, LARGE, FLAT = 0.02, 1 / 3, 0.3


class Extents(NamedTuple):
    """Height, width and channels of an image, and how tall and wide the part is that is taken."""

    height: int
    width: int
    channels: int
    tall: int
    wide: int


class ChangeSettings(NamedTuple):
    """Which changes are drawn.

    flip: mirrored or not, evenly; roams: whether a part of the image is taken at any place, else
    in the middle; crop: up to so many pixels each way, or beyond the image; shift: up to this share
    of height and width; rotation: up to so many degrees; cutout: side of the square that is
    blanked; erasing: share of images with a rectangle blanked instead.
    """

    flip: bool
    roams: bool
    crop: int
    shift: float
    rotation: float
    cutout: int
    erasing: float


@njit(**INNER)
def uniform(low, high, number):
    """Return a number in [0, 1) that depends on two words and its own number (0 to 2^32 - 1)
    only.
    """
    return mix32(np.uint32(mix32(np.uint32(np.uint32(number) ^ low)) ^ high)) / 4294967296.0


@njit(**INNER)
def _rectangle(low, high, height, width, cutout, erasing, change):
    """Choose the rectangle that is blanked: a square about any pixel (DeVries and Taylor 2017),
    or one of any shape (Zhong et al. 2017).
    """
    a, b, c, d = (
        uniform(low, high, 6),
        uniform(low, high, 7),
        uniform(low, high, 8),
        uniform(low, high, 9),
    )
    if cutout:
        change[TOP], change[LEFT] = (
            math.floor(a * height) - cutout // 2,
            math.floor(b * width) - cutout // 2,
        )
        change[BOTTOM], change[RIGHT] = change[TOP] + cutout, change[LEFT] + cutout
    elif uniform(low, high, 10) < erasing:
        area, ratio = (
            (SMALL + c * (LARGE - SMALL)) * height * width,
            math.exp((2 * d - 1) * math.log(FLAT)),
        )
        tall, wide = (
            min(height, round(math.sqrt(area * ratio))),
            min(width, round(math.sqrt(area / ratio))),
        )
        change[TOP], change[LEFT] = (
            math.floor(a * (height - tall + 1)),
            math.floor(b * (width - wide + 1)),
        )
        change[BOTTOM], change[RIGHT] = change[TOP] + tall, change[LEFT] + wide


@njit(**INNER)
def _place(chance, free, roams, crop):
    """Return where a part of an image side begins that leaves `free` pixels over: anywhere, up to
    `crop` beyond the image, or else about the middle.
    """
    if roams:
        return math.floor(chance * (free + 2 * crop + 1)) - crop
    return free // 2 + math.floor(chance * (2 * crop + 1)) - crop


@njit(**KERNEL)
def draw_changes(
    rows: np.ndarray,
    key: np.uint64,
    extents: Extents,
    settings: ChangeSettings,
    changes: np.ndarray,
) -> None:
    """Write one line of `changes` (n, COLUMNS), float64, for each dataset row int64 (n,) of
    images.
    """
    height, width, _, tall, wide = extents
    roams, crop, shift = settings.roams, settings.crop, settings.shift
    for i in range(rows.size):
        low, high = row_words(key, rows[i])
        change = changes[i]
        change[:] = 0
        change[FLIP] = settings.flip and uniform(low, high, 0) < 0.5
        change[CROP_Y] = _place(uniform(low, high, 1), height - tall, roams, crop)
        change[CROP_X] = _place(uniform(low, high, 2), width - wide, roams, crop)
        change[SHIFT_Y] = (2 * uniform(low, high, 3) - 1) * shift * tall
        change[SHIFT_X] = (2 * uniform(low, high, 4) - 1) * shift * wide
        angle = (2 * uniform(low, high, 5) - 1) * settings.rotation * math.pi / 180
        change[SINE], change[COSINE] = math.sin(angle), math.cos(angle)
        _rectangle(low, high, tall, wide, settings.cutout, settings.erasing, change)


@njit(**KERNEL)
def draw_flips(rows: np.ndarray, key: np.uint64, turned: bool, changes: np.ndarray) -> None:
    """Write the FLIP column of `changes` (n, COLUMNS) for dataset rows int64 (n,): what
    `draw_changes` draws with this key, or its contrary where `turned`.
    """
    for i in range(rows.size):
        low, high = row_words(key, rows[i])
        changes[i, FLIP] = (uniform(low, high, 0) < 0.5) != turned


@njit(**KERNEL)
def draw_colours(
    rows: np.ndarray, key: np.uint64, components: np.ndarray, changes: np.ndarray
) -> None:
    """Write the colour columns of `changes` (n, COLUMNS) for dataset rows int64 (n,): components
    (3, 3), float64, times three standard normal numbers (Box and Muller 1958).
    """
    for i in range(rows.size):
        low, high = row_words(key, rows[i])
        length = math.sqrt(-2 * math.log(1 - uniform(low, high, 11)))
        angle = 2 * math.pi * uniform(low, high, 12)
        first, second = length * math.cos(angle), length * math.sin(angle)
        length = math.sqrt(-2 * math.log(1 - uniform(low, high, 13)))
        third = length * math.cos(2 * math.pi * uniform(low, high, 14))
        for channel in range(3):
            changes[i, RED + channel] = (
                components[channel, 0] * first
                + components[channel, 1] * second
                + components[channel, 2] * third
            )


@njit(**INNER)
def _reflected(at, size):
    """Return the place within an image side that a place beyond it mirrors; the outermost pixels
    are not repeated.
    """
    if size == 1:
        return 0
    while at < 0 or at >= size:
        at = -at if at < 0 else 2 * size - 2 - at
    return at


@njit(**INNER)
def _move_image(pixels, change, table, extents, reflect, out):
    """Move and mirror an image by whole pixels; table (channels, 256): the number that each byte
    of a channel becomes.
    """
    height, width, channels, tall, wide = extents
    flip, blank = change[FLIP] != 0, out.dtype.type(0)
    for y in range(tall):
        from_y = y + int(change[CROP_Y])
        if reflect:
            from_y = _reflected(from_y, height)
        for x in range(wide):
            at = (y * wide + x) * channels
            if change[TOP] <= y < change[BOTTOM] and change[LEFT] <= x < change[RIGHT]:
                out[at : at + channels] = blank
                continue
            from_x = (wide - 1 - x if flip else x) + int(change[CROP_X])
            if reflect:
                from_x = _reflected(from_x, width)
            inside = 0 <= from_y < height and 0 <= from_x < width
            source = (from_y * width + from_x) * channels
            for channel in range(channels):
                out[at + channel] = table[channel, pixels[source + channel] if inside else 0]


@njit(**INNER)
def _read(pixels, y, x, channel, height, width, channels):
    """Return the value between four pixels of an image (height * width * channels); beyond the
    edge the edge's pixels are repeated.
    """
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    down, right = y - top, x - left
    below, beside = (width * channels if down else 0), (channels if right else 0)
    at = (top * width + left) * channels + channel
    upper = pixels[at] + right * (float(pixels[at + beside]) - pixels[at])
    lower = pixels[at + below] + right * (float(pixels[at + below + beside]) - pixels[at + below])
    return upper + down * (lower - upper)


@njit(**INNER)
def _change_image(pixels, change, mean, inverse_std, extents, reflect, out):
    height, width, channels, tall, wide = extents
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    zero, period = out.dtype.type(0), mean.size
    for y in range(tall):
        for x in range(wide):
            at = (y * wide + x) * channels
            if change[TOP] <= y < change[BOTTOM] and change[LEFT] <= x < change[RIGHT]:
                out[at : at + channels] = zero
                continue
            from_y, from_x = (
                y + change[CROP_Y],
                (wide - 1 - x if change[FLIP] else x) + change[CROP_X],
            )
            if reflect:
                from_y, from_x = (
                    float(_reflected(int(from_y), height)),
                    float(_reflected(int(from_x), width)),
                )
            inside = 0 <= from_y < height and 0 <= from_x < width
            down, right = from_y - middle_y + change[SHIFT_Y], from_x - middle_x + change[SHIFT_X]
            source_y = change[COSINE] * down - change[SINE] * right + middle_y
            source_x = change[SINE] * down + change[COSINE] * right + middle_x
            for channel in range(channels):
                value = (
                    _read(pixels, source_y, source_x, channel, height, width, channels)
                    if inside
                    else 0.0
                )
                out[at + channel] = (value - mean[channel % period]) * inverse_std[channel % period]


@njit(**INNER)
def _byte_table(mean, inverse_std, channels):
    """Return what each byte of each channel becomes, (channels, 256), to the bit as
    `_change_image` computes it.
    """
    table = np.empty((channels, 256), mean.dtype)
    for channel in range(channels):
        for value in range(256):
            place = channel % mean.size
            table[channel, value] = (float(value) - mean[place]) * inverse_std[place]
    return table


@njit(**INNER)
def _is_coloured(change):
    return change[RED] != 0 or change[RED + 1] != 0 or change[RED + 2] != 0


@njit(**INNER)
def _coloured(mean, change):
    """Return the mean (3,) that adds a change of colour to what it is taken off."""
    shifted = np.empty(3, mean.dtype)
    for channel in range(3):
        shifted[channel] = mean[channel] - change[RED + channel]
    return shifted


@njit(parallel=True, **KERNEL)
def gather_change(
    images: np.ndarray,
    places: np.ndarray,
    changes: np.ndarray,
    mean: np.ndarray,
    inverse_std: np.ndarray,
    extents: Extents,
    reflect: bool,
    out: np.ndarray,
) -> None:
    """Write out[i] = (changed images[places[i]] - mean) * inverse_std; blanked pixels become 0, the
    mean.

    images (N, features) uint8, features = height * width * channels of the `extents`; places (n,)
    int64, unchecked; changes (n, COLUMNS) of `draw_changes`, whose colours (`draw_colours`) are
    added to three channels that have a mean each; mean, inverse_std as in
    `inputs.gather_normalize`; reflect: whether the frame about an image reflects it; out (n, tall *
    wide * channels).
    """
    table = _byte_table(mean, inverse_std, extents.channels)
    for i in prange(places.size):
        change, own_mean, own_table = changes[i], mean, table
        if _is_coloured(change):
            own_mean = _coloured(mean, change)
            own_table = _byte_table(own_mean, inverse_std, extents.channels)
        if change[SHIFT_Y] == 0 and change[SHIFT_X] == 0 and change[SINE] == 0:
            _move_image(images[places[i]], change, own_table, extents, reflect, out[i])
        else:
            _change_image(
                images[places[i]], change, own_mean, inverse_std, extents, reflect, out[i]
            )
