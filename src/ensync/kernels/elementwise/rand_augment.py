"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719): some operations on each image, drawn from
fourteen, of one magnitude.

The operations, their ranges and their signs are those of torchvision's RandAugment, computed as
Pillow does: shifts, turns and shears take the nearest pixel and leave black behind. A key and an
image's number in the dataset decide alone what is done to it.
"""

import math

import numpy as np
from numba import njit, prange

from ensync.kernels.elementwise.augmentation import uniform
from ensync.kernels.elementwise.dropout import row_words
from ensync.kernels.options import INNER, KERNEL

OPERATIONS = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "color", "contrast", "sharpness"),
    *("posterize", "solarize", "auto_contrast", "equalize"),
)
IDENTITY, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, ROTATE = range(6)
BRIGHTNESS, COLOR, CONTRAST, SHARPNESS = range(6, 10)
POSTERIZE, SOLARIZE, AUTO_CONTRAST, EQUALIZE = range(10, 14)
MOST = 30  # magnitude
# At the greatest magnitude: share of a side, degrees, and off the factor of 1.
SHEAR, TRANSLATION, ANGLE, FACTOR = 0.3, 150 / 331, 30, 0.9
FIRST_DRAW = 16  # behind those of augmentation.py
ONE = 1 << 16  # of a place in an image as an integer


@njit(**KERNEL)
def draw_operations(
    rows: np.ndarray,
    key: np.uint64,
    magnitude: float,
    sides: tuple[int, int],
    operations: np.ndarray,
) -> None:
    """Write the operations (n, count, 2), float64, of the dataset rows int64 (n,): place in
    OPERATIONS, and how much: share of the other side, pixels, radians, factor, bits that are left,
    least byte that is inverted, or 0.

    magnitude: 0 to MOST. sides: height and width of an image.
    """
    height, width = sides
    part = magnitude / MOST
    for i in range(rows.size):
        low, high = row_words(key, rows[i])
        for j in range(operations.shape[1]):
            code = math.floor(uniform(low, high, FIRST_DRAW + 2 * j) * len(OPERATIONS))
            sign = 1 if uniform(low, high, FIRST_DRAW + 2 * j + 1) < 0.5 else -1
            much = 0.0
            if code == SHEAR_X or code == SHEAR_Y:
                much = sign * SHEAR * part
            elif code == TRANSLATE_X or code == TRANSLATE_Y:
                side = width if code == TRANSLATE_X else height
                much = sign * math.floor(TRANSLATION * side * part)
            elif code == ROTATE:
                much = sign * ANGLE * part * math.pi / 180
            elif BRIGHTNESS <= code <= SHARPNESS:
                much = 1 + sign * FACTOR * part
            elif code == POSTERIZE:
                much = 8 - np.rint(4 * part)
            elif code == SOLARIZE:
                much = 255 * (1 - part)
            operations[i, j, 0], operations[i, j, 1] = code, much


@njit(**INNER)
def _fixed(value):
    """Return a place as an integer."""
    return math.floor(value * ONE + 0.5)


@njit(**INNER)
def _matrix(code, much, height, width):
    """Return (a, b, c, d, e, f): the pixel that is read for (x, y) is (a x + b y + c, d x + e y +
    f).
    """
    if code == SHEAR_X:
        return 1.0, much, 0.0, 0.0, 1.0, 0.0
    if code == SHEAR_Y:
        return 1.0, 0.0, 0.0, much, 1.0, 0.0
    if code == TRANSLATE_X:
        return 1.0, 0.0, much, 0.0, 1.0, 0.0
    if code == TRANSLATE_Y:
        return 1.0, 0.0, 0.0, 0.0, 1.0, much
    c, s, x, y = math.cos(much), math.sin(much), width / 2, height / 2
    return c, s, x - c * x - s * y, -s, c, y + s * x - c * y


@njit(**INNER)
def _move(source, matrix, form, target):
    """Write an image whose pixels are read where a matrix says."""
    height, width, channels = form
    a, b, c, d, e, f = matrix
    # Of the middles of pixels.
    line_x, line_y = _fixed(c + (a + b) / 2), _fixed(f + (d + e) / 2)
    step_x, step_y, down_x, down_y = _fixed(a), _fixed(d), _fixed(b), _fixed(e)
    to = 0
    for _ in range(height):
        at_x, at_y = line_x, line_y
        for _ in range(width):
            x, y = at_x >> 16, at_y >> 16
            if 0 <= x < width and 0 <= y < height:
                at = (y * width + x) * channels
                for channel in range(channels):
                    target[to + channel] = source[at + channel]
            else:
                for channel in range(channels):
                    target[to + channel] = 0
            at_x, at_y, to = at_x + step_x, at_y + step_y, to + channels
        line_x, line_y = line_x + down_x, line_y + down_y


@njit(**INNER)
def _blend(less, more, factor):
    """Return a byte `factor` times the way from one to another, within 0 to 255."""
    value = np.float32(less) + factor * np.float32(more - less)
    return np.uint8(min(max(value, np.float32(0)), np.float32(255)))


@njit(**INNER)
def _grey(source, at):
    """Return the grey (ITU-R 601) of three bytes."""
    red, green, blue = int(source[at]), int(source[at + 1]), int(source[at + 2])
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


@njit(**INNER)
def _mean_grey(source, channels):
    """Return the mean of an image's grey, rounded."""
    total, pixels = 0, source.size // channels
    for pixel in range(pixels):
        total += _grey(source, 3 * pixel) if channels == 3 else int(source[pixel])
    return int(total / pixels + 0.5)


@njit(**INNER)
def _change_colour(source, factor, target):
    """Write an image of three channels between its grey and itself, or beyond."""
    for at in range(0, source.size, 3):
        grey = _grey(source, at)
        for channel in range(3):
            target[at + channel] = _blend(grey, int(source[at + channel]), factor)


@njit(**INNER)
def _sharpen(source, factor, form, target):
    """Write an image between a smoothed one, of the mean of nine pixels, the middle one five times,
    and itself, or beyond. Pixels at the border stay.
    """
    height, width, channels = form
    line = width * channels
    target[:] = source
    for y in range(1, height - 1):
        for at in range(y * line + channels, (y + 1) * line - channels):
            total = 4 * int(source[at])
            for i in range(-1, 2):
                middle = at + i * line
                total += int(source[middle - channels]) + int(source[middle])
                total += int(source[middle + channels])
            target[at] = _blend((2 * total + 13) // 26, int(source[at]), factor)


@njit(**INNER)
def _stretched(counts, table):
    """Write the bytes that stretch those of a histogram over 0 to 255."""
    low, high = 0, 255
    while low < 255 and counts[low] == 0:
        low += 1
    while high > 0 and counts[high] == 0:
        high -= 1
    for value in range(256):
        table[value] = value
    if high > low:
        scale = 255.0 / (high - low)
        for value in range(256):
            table[value] = np.uint8(min(max(int(value * scale - low * scale), 0), 255))


@njit(**INNER)
def _equalized(counts, table):
    """Write the bytes that make the histogram even."""
    last, total = 255, 0
    while last > 0 and counts[last] == 0:
        last -= 1
    for value in range(256):
        table[value], total = value, total + counts[value]
    step = (total - counts[last]) // 255
    if step > 0:
        below = step // 2
        for value in range(256):
            table[value] = np.uint8(min(below // step, 255))
            below += counts[value]


@njit(**INNER)
def _fill_table(source, code, much, channels, table):
    """Write what each byte of each channel becomes, (channels, 256)."""
    if code == AUTO_CONTRAST or code == EQUALIZE:
        counts = np.zeros((channels, 256), np.int64)
        for at in range(0, source.size, channels):
            for channel in range(channels):
                counts[channel, source[at + channel]] += 1
        for channel in range(channels):
            if code == EQUALIZE:
                _equalized(counts[channel], table[channel])
            else:
                _stretched(counts[channel], table[channel])
        return
    grey = _mean_grey(source, channels) if code == CONTRAST else 0
    factor, kept = np.float32(much), -1
    if code == POSTERIZE:
        kept = ~((1 << (8 - int(much))) - 1)
    for value in range(256):
        if code == POSTERIZE:
            byte = value & kept
        elif code == SOLARIZE:
            byte = value if value < much else 255 - value
        else:
            byte = int(_blend(grey, value, factor))
        for channel in range(channels):
            table[channel, value] = byte


@njit(**INNER)
def _operate(source, code, much, form, table, target):
    """Write an image to which one operation was done."""
    channels = form[2]
    if SHEAR_X <= code <= ROTATE:
        _move(source, _matrix(code, much, form[0], form[1]), form, target)
    elif code == COLOR and channels == 3:
        _change_colour(source, np.float32(much), target)
    elif code == SHARPNESS:
        _sharpen(source, np.float32(much), form, target)
    elif code == IDENTITY or code == COLOR:
        target[:] = source
    else:
        _fill_table(source, code, much, channels, table)
        for at in range(0, source.size, channels):
            for channel in range(channels):
                target[at + channel] = table[channel, source[at + channel]]


@njit(parallel=True, **KERNEL)
def gather_operate(
    images: np.ndarray,
    places: np.ndarray,
    operations: np.ndarray,
    form: tuple[int, int, int],
    out: np.ndarray,
) -> None:
    """Write to out (n, features), uint8, images[places[i]] to which its operations were done, one
    after the other.

    images (N, features) uint8; places (n,) int64, unchecked; operations (n, count, 2) of
    `draw_operations`; form: height, width and channels, 1 or 3, of an image.
    """
    count = operations.shape[1]
    for i in prange(places.size):
        rooms = np.empty((2, images.shape[1]), np.uint8)
        table = np.empty((form[2], 256), np.uint8)
        rooms[0] = images[places[i]]
        for j in range(count):
            source, target = rooms[j % 2], rooms[(j + 1) % 2]
            _operate(source, int(operations[i, j, 0]), operations[i, j, 1], form, table, target)
        out[i] = rooms[count % 2]
