"""Changed images against SciPy's interpolation, and the draws behind them."""

import naive as oracles
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from ensync.kernels.elementwise import augmentation as kernels
from ensync.kernels.threads import get_threads, set_threads

HEIGHT, WIDTH, CHANNELS = SHAPE = 9, 7, 3
WHOLE = kernels.Extents(*SHAPE, HEIGHT, WIDTH)
PART = kernels.Extents(*SHAPE, 5, 4)
IMAGES = np.random.default_rng(0).integers(0, 256, (20, HEIGHT * WIDTH * CHANNELS), dtype=np.uint8)
MEAN, INVERSE = np.array([100.0, 120.0, 90.0]), np.array([1 / 50, 1 / 60, 1 / 70])
ROWS = np.array([3, 0, 19, 7, 7, 11, 2, 5])
COLOURS = np.random.default_rng(1).standard_normal((3, 3)) * 9
CASES = [
    {"flip": True},
    {"crop": 3},
    {"shift": 0.4},
    {"rotation": 50.0},
    {"cutout": 4},
    {"erasing": 0.9},
    {"flip": True, "crop": 2, "shift": 0.2, "rotation": 20.0, "erasing": 0.5},
]


def draw(rows=ROWS, key=12345, extents=WHOLE, **settings):
    chosen = {
        "flip": False,
        "roams": False,
        "crop": 0,
        "shift": 0.0,
        "rotation": 0.0,
        "cutout": 0,
        "erasing": 0.0,
    } | settings
    changes = np.empty((len(rows), kernels.COLUMNS))
    kernels.draw_changes(rows, np.uint64(key), extents, kernels.ChangeSettings(**chosen), changes)
    return changes


def change(changes, places=ROWS, dtype=np.float64, reflect=False, extents=WHOLE):
    out = np.empty((len(places), extents.tall * extents.wide * CHANNELS), dtype)
    kernels.gather_change(
        IMAGES,
        places,
        changes,
        MEAN.astype(dtype),
        INVERSE.astype(dtype),
        extents,
        reflect,
        out,
    )
    return out


def naive(pixels, line, extents=WHOLE):
    """One image by the formula, with SciPy's reading between pixels."""
    flip, oy, ox, dy, dx, sine, cosine, top, bottom, left, right = line[: kernels.RED]
    y, x = np.mgrid[: extents.tall, : extents.wide].astype(float)
    x = extents.wide - 1 - x if flip else x
    y, x = y + oy, x + ox
    outside = (y < 0) | (y >= HEIGHT) | (x < 0) | (x >= WIDTH)
    centre = np.array([(HEIGHT - 1) / 2, (WIDTH - 1) / 2])[:, None, None]
    turned = (
        np.tensordot(
            np.array([[cosine, -sine], [sine, cosine]]), np.stack([y + dy, x + dx]) - centre, 1
        )
        + centre
    )
    image = pixels.reshape(HEIGHT, WIDTH, CHANNELS).astype(float)
    read = np.stack(
        [map_coordinates(image[..., c], turned, order=1, mode="nearest") for c in range(CHANNELS)],
        -1,
    )
    read[outside] = 0
    result = (read + line[kernels.RED :] - MEAN) * INVERSE
    rows, columns = np.mgrid[: extents.tall, : extents.wide]
    result[(rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)] = 0
    return result.ravel()


@pytest.mark.parametrize("extents", [WHOLE, PART], ids=["whole", "part"])
@pytest.mark.parametrize("settings", CASES, ids=lambda s: "-".join(s))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_equal_scipys(settings, dtype, extents):
    changes = draw(extents=extents, roams=extents is PART, **settings)
    kernels.draw_colours(ROWS[4:], np.uint64(7), COLOURS, changes[4:])
    expected = [naive(IMAGES[row], line, extents) for row, line in zip(ROWS, changes, strict=True)]
    np.testing.assert_allclose(
        change(changes, dtype=dtype, extents=extents),
        expected,
        rtol=1e-5 if dtype == np.float32 else 1e-11,
        atol=1e-5 if dtype == np.float32 else 1e-11,
    )


@pytest.mark.parametrize("crop", [0, 2])
def test_parts_lie_anywhere_evenly_or_in_the_middle(crop):
    """In the image, and in its frame where there is one; the draws are those of whole images."""
    rows = np.arange(300)
    roaming = draw(rows, extents=PART, roams=True, crop=crop)
    still = draw(rows, extents=PART, crop=crop)
    for column, number, free in ((kernels.CROP_Y, 1, 4), (kernels.CROP_X, 2, 3)):
        chances = [oracles.chance(12345, row, number) for row in range(300)]
        places = [int(c * (free + 2 * crop + 1)) - crop for c in chances]
        assert np.array_equal(roaming[:, column], places)
        assert set(places) == set(range(-crop, free + crop + 1))
        moved = [int(c * (2 * crop + 1)) - crop for c in chances]
        assert np.array_equal(still[:, column], np.array(moved) + free // 2)


def test_colours_are_components_times_normal_numbers():
    changes = np.ones((300, kernels.COLUMNS))
    kernels.draw_colours(np.arange(300), np.uint64(12345), COLOURS, changes)
    normal = np.array([oracles.three_normal(12345, row) for row in range(300)])
    np.testing.assert_allclose(changes[:, kernels.RED :], normal @ COLOURS.T, rtol=1e-9)
    assert (changes[:, : kernels.RED] == 1).all()
    assert abs(normal.mean()) < 0.1 and 0.9 < normal.std() < 1.1
    assert np.abs(np.corrcoef(normal.T) - np.eye(3)).max() < 0.2


def cropped(pixels, line, pad):
    """One image by padding, cutting and mirroring; pad(image) adds 3 pixels on every side."""
    flip, oy, ox = line[:3]
    y, x = int(oy) + 3, int(ox) + 3
    image = pad(pixels.reshape(SHAPE).astype(float))[y : y + HEIGHT, x : x + WIDTH]
    return ((image[:, ::-1] if flip else image) - MEAN).ravel() * np.tile(INVERSE, HEIGHT * WIDTH)


def numpy_pad(image):
    return np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")


def torch_pad(image):
    torch = pytest.importorskip("torch")
    planes = torch.from_numpy(image).permute(2, 0, 1)
    return torch.nn.functional.pad(planes, (3,) * 4, mode="reflect").permute(1, 2, 0).numpy()


@pytest.mark.parametrize("pad", [numpy_pad, torch_pad])
def test_reflected_frames_equal_those_of_others(pad):
    changes = draw(flip=True, crop=3)
    expected = [cropped(IMAGES[row], line, pad) for row, line in zip(ROWS, changes, strict=True)]
    for dtype, digits in ((np.float32, 1e-5), (np.float64, 1e-12)):
        found = change(changes, dtype=dtype, reflect=True)
        np.testing.assert_allclose(found, expected, rtol=digits, atol=digits)
    changes[:, kernels.SHIFT_X] = 1e-15  # the other way there: between pixels
    np.testing.assert_allclose(change(changes, reflect=True), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_frames_wider_than_the_image_are_reflected_again_and_again(size):
    line = np.arange(size, dtype=np.uint8)
    changes = np.zeros((41, kernels.COLUMNS))
    changes[:, kernels.CROP_X], changes[:, kernels.COSINE] = np.arange(-20, 21), 1
    found, unit = np.empty((41, size)), np.ones(1)
    kernels.gather_change(
        *(line[None], np.zeros(41, np.int64), changes, 0 * unit, unit),
        kernels.Extents(1, size, 1, 1, size),
        True,
        found,
    )
    padded = np.pad(line, 20, mode="reflect")
    assert np.array_equal(found, [padded[first : first + size] for first in range(41)])


def test_whole_pixels_equal_those_read_between_pixels_to_the_bit():
    changes = draw(flip=True, crop=3, cutout=3)
    slightly = changes.copy()
    slightly[:, kernels.SHIFT_Y] = 1e-300  # lost in the sum with a coordinate
    for reflect in (False, True):
        fast, slow = (change(c, dtype=np.float32, reflect=reflect) for c in (changes, slightly))
        assert np.array_equal(fast, slow)


def test_flips_alternate_from_a_random_start():
    first, rows = draw(flip=True), np.arange(500)
    again = draw(crop=2, key=7)
    kernels.draw_flips(ROWS, np.uint64(12345), False, again)
    assert np.array_equal(again[:, kernels.FLIP], first[:, kernels.FLIP])
    assert np.array_equal(again[:, 1:], draw(crop=2, key=7)[:, 1:])
    both = [np.empty((500, kernels.COLUMNS)) for _ in range(2)]
    for turned, changes in enumerate(both):
        kernels.draw_flips(rows, np.uint64(1), bool(turned), changes)
    flips = [changes[:, kernels.FLIP] for changes in both]
    assert np.array_equal(flips[0], 1 - flips[1]) and 0.4 < flips[0].mean() < 0.6


def test_nothing_changed_is_the_image():
    np.testing.assert_allclose(
        change(draw()),
        (IMAGES[ROWS].reshape(8, -1, 3) - MEAN).reshape(8, -1) * np.tile(INVERSE, HEIGHT * WIDTH),
        rtol=1e-12,
    )


def test_changes_belong_to_key_and_row():
    whole = draw(**CASES[-1])
    assert np.array_equal(whole[3], whole[4]) and not np.array_equal(whole[0], whole[1])
    assert np.array_equal(draw(ROWS[2:4], **CASES[-1]), whole[2:4])
    assert not np.array_equal(draw(key=12346, **CASES[-1]), whole)


@pytest.mark.compiled
def test_changes_keep_their_limits_and_fill_them():
    many = draw(np.arange(4000), flip=True, crop=2, shift=0.25, rotation=30.0, erasing=0.25)
    assert 0.47 < many[:, kernels.FLIP].mean() < 0.53
    assert set(many[:, kernels.CROP_Y]) == set(range(-2, 3)) == set(many[:, kernels.CROP_X])
    for column, limit in (
        (kernels.SHIFT_Y, HEIGHT / 4),
        (kernels.SHIFT_X, WIDTH / 4),
        (kernels.SINE, 0.5),
    ):
        assert (
            0.99 * limit < np.abs(many[:, column]).max() <= limit
            and abs(many[:, column].mean()) < 0.05 * limit
        )
    erased = many[:, kernels.BOTTOM] > 0
    areas = (
        (many[:, kernels.BOTTOM] - many[:, kernels.TOP])
        * (many[:, kernels.RIGHT] - many[:, kernels.LEFT])
    )[erased] / (HEIGHT * WIDTH)
    assert 0.22 < erased.mean() < 0.28 and areas.min() >= 0 and 0.3 < areas.max() <= 0.5
    assert (
        many[:, kernels.TOP].min() >= 0
        and many[:, kernels.BOTTOM].max() == HEIGHT
        and many[:, kernels.RIGHT].max() == WIDTH
    )


def test_threads_do_not_matter():
    before, changes = get_threads(), draw(**CASES[-1])
    found = []
    for threads in (1, before):
        set_threads(threads)
        found.append(change(changes))
    set_threads(before)
    assert np.array_equal(*found)
