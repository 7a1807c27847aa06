"""RandAugment's operations against Pillow's, to the byte, and the draws behind them."""

import math

import naive as oracles
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from ensync.kernels.elementwise import rand_augment as kernels
from ensync.kernels.threads import get_threads, set_threads

KEY = 12345
FORMS = [(9, 7, 3), (8, 11, 1), (2, 5, 3)]
HOW_MUCH = {  # of an image of any size
    "identity": (0,),
    "shear_x": (0.3, -0.11),
    "shear_y": (-0.3, 0.2),
    "translate_x": (3, -1),
    "translate_y": (2, -4),
    "rotate": (0.5, -0.2),
    "brightness": (0.1, 0.73, 1.9),
    "color": (0.1, 1.27),
    "contrast": (0.4, 1.9),
    "sharpness": (0.1, 1.9),
    "posterize": (4, 7, 8),
    "solarize": (0, 178.5, 255),
    "auto_contrast": (0,),
    "equalize": (0,),
}


def images_of(form):
    """Images of random bytes, of few bytes, and of one."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, math.prod(form)), dtype=np.uint8)
    images[2:4] = images[2:4] // 5 + 90
    images[4] = images[4] // 100
    images[5] = 200
    return images


def operate(images, form, operations):
    out = np.empty((len(operations), math.prod(form)), np.uint8)
    places = np.arange(len(operations)) % len(images)
    kernels.gather_operate(images, places, np.asarray(operations, float), form, out)
    return out


def pillows(pixels, form, name, much):
    """One operation on one image by Pillow, as torchvision calls it."""
    shape = form if form[2] == 3 else form[:2]
    image = Image.fromarray(pixels.reshape(shape))

    def moved(*matrix):
        return image.transform(image.size, Image.Transform.AFFINE, matrix)

    done = {
        "identity": lambda: image,
        "shear_x": lambda: moved(1, much, 0, 0, 1, 0),
        "shear_y": lambda: moved(1, 0, 0, much, 1, 0),
        "translate_x": lambda: moved(1, 0, much, 0, 1, 0),
        "translate_y": lambda: moved(1, 0, 0, 0, 1, much),
        "rotate": lambda: image.rotate(-math.degrees(much)),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(much),
        "color": lambda: ImageEnhance.Color(image).enhance(much),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(much),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(much),
        "posterize": lambda: ImageOps.posterize(image, int(much)),
        "solarize": lambda: ImageOps.solarize(image, much),
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
    }
    return np.asarray(done[name]()).ravel()


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("name", kernels.OPERATIONS)
def test_an_operation_is_pillows(name, form):
    images = images_of(form)
    for much in HOW_MUCH[name]:
        done = operate(images, form, [[[kernels.OPERATIONS.index(name), much]]] * len(images))
        expected = [pillows(pixels, form, name, much) for pixels in images]
        assert np.array_equal(done, expected), much


def test_operations_are_done_one_after_the_other():
    form = FORMS[0]
    images = images_of(form)
    named = [("rotate", 0.4), ("equalize", 0), ("solarize", 100)]
    steps = [[kernels.OPERATIONS.index(name), much] for name, much in named]
    for count in (1, 2, 3):
        expected = images
        for name, much in named[:count]:
            expected = [pillows(pixels, form, name, much) for pixels in expected]
        assert np.array_equal(operate(images, form, [steps[:count]] * len(images)), expected)


def draw(rows, count=2, magnitude=9.0, sides=(32, 40), key=KEY):
    operations = np.empty((len(rows), count, 2))
    kernels.draw_operations(np.asarray(rows), np.uint64(key), magnitude, sides, operations)
    return operations


@pytest.mark.compiled
def test_operations_are_drawn_evenly_of_torchvisions_ranges():
    """The table of torchvision.transforms.RandAugment (31 bins of magnitude) at its default, 9."""
    drawn = draw(np.arange(5000)).reshape(-1, 2)
    counts = np.bincount(drawn[:, 0].astype(int), minlength=14)
    assert len(counts) == 14 and np.all(np.abs(counts / len(drawn) - 1 / 14) < 0.01)
    third = 9 / 30
    expected = {
        **dict.fromkeys(("identity", "auto_contrast", "equalize"), {0.0}),
        **dict.fromkeys(("shear_x", "shear_y"), {0.3 * third, -0.3 * third}),
        "translate_x": {5, -5},  # int(150 / 331 * 40 * 0.3)
        "translate_y": {4, -4},
        "rotate": {math.radians(9), -math.radians(9)},
        **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), {1.27, 0.73}),
        "posterize": {7},
        "solarize": {255 * 0.7},
    }
    for code, name in enumerate(kernels.OPERATIONS):
        found = set(np.round(drawn[drawn[:, 0] == code, 1], 12))
        assert found == {round(much, 12) for much in expected[name]}, name
    signs = np.sign(drawn[drawn[:, 0] == kernels.ROTATE, 1])
    assert abs(signs.mean()) < 0.15
    most = draw(np.arange(500), magnitude=30.0).reshape(-1, 2)
    assert set(most[most[:, 0] == kernels.POSTERIZE, 1]) == {4}
    assert set(most[most[:, 0] == kernels.SOLARIZE, 1]) == {0}


def test_operations_belong_to_key_and_row():
    whole = draw([3, 0, 19, 7, 7], count=3)
    assert np.array_equal(whole[3], whole[4]) and not np.array_equal(whole[0], whole[1])
    assert np.array_equal(draw([19, 7], count=3), whole[2:4])
    assert np.array_equal(draw([3, 0, 19, 7, 7]), whole[:, :2])
    assert not np.array_equal(draw([3, 0, 19, 7, 7], count=3, key=KEY + 1), whole)
    for place, row in enumerate((3, 0, 19)):
        chances = [oracles.chance(KEY, row, kernels.FIRST_DRAW + 2 * j) for j in range(3)]
        assert np.array_equal(whole[place, :, 0], np.floor(14 * np.array(chances)))


def test_threads_and_places_do_not_matter():
    form, before = FORMS[0], get_threads()
    images, found = images_of(form), []
    for threads in (1, before):
        set_threads(threads)
        found.append(operate(images, form, draw(range(12), sides=form[:2])))
    set_threads(before)
    assert np.array_equal(*found)
    out = np.empty((3, math.prod(form)), np.uint8)
    places = np.array([4, 0, 4])
    kernels.gather_operate(images, places, draw([4, 0, 10], sides=form[:2]), form, out)
    assert np.array_equal(out, found[0][[4, 0, 10]])
