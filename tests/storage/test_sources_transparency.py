"""Pictures with transparency lie over a ground, and of several frames the first is taken."""

import struct

import numpy as np
import pytest
from PIL import Image
from samples import pictures, png_with_key, prepare, write_classes

from ensync.storage.dataset import open_dataset
from ensync.storage.sources.decoding import Recipe, decode
from ensync.storage.sources.to_predict import read_pictures

SIDE = 8
SHAPE = (SIDE, SIDE, 3)
TEAL = (0, 128, 120)
OTHER = Recipe("#008078")


def composed(colours: np.ndarray, alpha: np.ndarray, ground=TEAL) -> np.ndarray:
    """Return what colours float (h, w, 3) over a ground look like, alpha in 0..255."""
    share = alpha[..., None] / 255
    return colours * share + np.array(ground) * (1 - share)


COLOURS, ALPHA = pictures(1, SIDE, SIDE, 3)[0], pictures(1, SIDE, SIDE, 1, 1)[0, ..., 0]
GREY = np.repeat(COLOURS[..., :1], 3, axis=-1)
CUT = np.where(ALPHA > 127, 255, 0).astype(np.uint8)  # of formats that know no half transparency
RGBA = np.dstack([COLOURS, ALPHA])


def save(path, mode, array, **options):
    """Write an array as a picture of this mode."""
    Image.frombytes(mode, (SIDE, SIDE), np.ascontiguousarray(array).tobytes()).save(path, **options)


def palette_png(path):
    """Write a palette whose first colours are transparent by half and wholly."""
    picture = Image.frombytes("P", (SIDE, SIDE), (np.arange(64) % 4).astype(np.uint8).tobytes())
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    picture.save(path, transparency=bytes([128, 0, 255, 255]))


PALETTE = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]])[
    np.arange(64) % 4
].reshape(SHAPE)
PALETTE_ALPHA = np.array([128, 0, 255, 255])[np.arange(64) % 4].reshape(SIDE, SIDE)


@pytest.mark.parametrize(
    ("name", "write", "expected", "tolerance"),
    [
        ("a.png", lambda path: save(path, "RGBA", RGBA), composed(COLOURS, ALPHA), 1),
        ("a.png", lambda path: save(path, "LA", RGBA[..., [0, 3]]), composed(GREY, ALPHA), 1),
        ("a.png", palette_png, composed(PALETTE, PALETTE_ALPHA), 1),
        (
            "a.webp",
            lambda path: save(path, "RGBA", RGBA, lossless=True, exact=True),
            composed(COLOURS, ALPHA),
            1,
        ),
        (
            "a.gif",
            lambda path: save(path, "RGBA", np.dstack([PALETTE, CUT]).astype(np.uint8)),
            composed(PALETTE, CUT),
            3,
        ),
        ("a.tif", lambda path: save(path, "RGBA", RGBA), composed(COLOURS, ALPHA), 1),
        ("a.tif", lambda path: save(path, "LA", RGBA[..., [0, 3]]), composed(GREY, ALPHA), 1),
    ],
)
def test_transparent_pictures_lie_over_the_ground(tmp_path, name, write, expected, tolerance):
    write(tmp_path / name)
    found = decode(tmp_path / name, SHAPE, OTHER)
    assert found.transparent and np.abs(found.pixels - expected).max() <= tolerance
    grey = decode(tmp_path / name, (SIDE, SIDE, 1), OTHER).pixels[..., 0]
    assert np.abs(grey - expected @ [0.299, 0.587, 0.114]).max() <= tolerance + 1


@pytest.mark.parametrize(
    ("bits", "kind", "rows", "key", "values"),
    [
        (1, 0, [b"\x0f"] * SIDE, [1], [0, 0, 0, 0, 255, 255, 255, 255]),
        (2, 0, [b"\x1b\x1b"] * SIDE, [3], [0, 85, 170, 255] * 2),
        (4, 0, [b"\x01\x23\x4f\x2f"] * SIDE, [2], [0, 17, 34, 51, 68, 255, 34, 255]),
        (8, 0, [bytes([9, 200, 0, 9, 255, 1, 2, 3])] * SIDE, [9], [9, 200, 0, 9, 255, 1, 2, 3]),
        (
            16,
            0,
            [struct.pack(">8H", 300, 301, 65535, 0, 300, 40000, 256, 512)] * SIDE,
            [300],
            [1, 1, 255, 0, 1, 156, 1, 2],
        ),
        (8, 2, [bytes([7, 8, 9, 7, 8, 8] * 4)] * SIDE, [7, 8, 9], [[7, 8, 9], [7, 8, 8]] * 4),
        (
            16,
            2,
            [struct.pack(">6H", 700, 800, 900, 65535, 0, 0) * 4] * SIDE,
            [700, 800, 900],
            [[2, 3, 3], [255, 0, 0]] * 4,
        ),
    ],
)
def test_the_transparent_value_of_png_counts_in_bits_of_the_file(
    tmp_path, bits, kind, rows, key, values
):
    (tmp_path / "a.png").write_bytes(
        png_with_key(bits, kind, rows, struct.pack(f">{len(key)}H", *key))
    )
    steps = {1: 255, 2: 85, 4: 17}.get(bits, 1)
    shown = np.array([[value] * 3 if kind == 0 else value for value in values])
    clear = {
        (16, 0): [True, False, False, False, True, False, False, False],
        (16, 2): [True, False] * 4,
    }
    where = np.array(
        clear.get(
            (bits, kind),
            [list(np.atleast_1d(value)) == [part * steps for part in key] for value in values],
        )
    )
    found = decode(tmp_path / "a.png", SHAPE, OTHER)
    assert found.transparent and np.array_equal(
        found.pixels, np.broadcast_to(np.where(where[:, None], TEAL, shown), SHAPE)
    )


def test_alpha_that_hides_nothing_is_not_counted(tmp_path):
    save(tmp_path / "a.png", "RGBA", np.dstack([COLOURS, np.full((SIDE, SIDE), 255, np.uint8)]))
    found = decode(tmp_path / "a.png", SHAPE, OTHER)
    assert not found.transparent and np.array_equal(found.pixels, COLOURS)


def test_prepare_and_predict_share_ground_and_tell_of_it(tmp_path):
    write_classes(
        tmp_path / "in",
        lambda path, seed: save(path, "RGBA", np.roll(RGBA, seed, axis=0)),
        [f"{n}.png" for n in range(5)],
    )
    Image.new("RGB", (SIDE, SIDE)).save(
        tmp_path / "in" / "a" / "z.gif",
        save_all=True,
        append_images=[Image.new("RGB", (SIDE, SIDE), "red")],
    )
    done = prepare("images", tmp_path / "d.h5", tmp_path / "in", size=SIDE, background="#008078")
    assert (
        "transparent pixels, composed over #008078: 10 "
        "(a/0.png; a/1.png; a/2.png; a/3.png; a/4.png; ...)" in done.notes
    )
    assert "several frames, the first taken: 1 (a/z.gif)" in done.notes
    with open_dataset(done.path) as dataset:
        rule = dataset.preparation
        assert (
            rule["background"] == "#008078"
            and rule["transparent"] == 10
            and rule["frames"] == 1
            and "composed over #008078: 10" in dataset.describe()
        )
    pixels, _names, notes = read_pictures([tmp_path / "in" / "a" / "0.png"], SHAPE, rule)
    assert np.abs(pixels[0] - composed(COLOURS, ALPHA)).max() <= 1 and notes[0].startswith(
        "transparent pixels, composed over #008078: 1 ("
    )
    assert prepare("images", tmp_path / "d.h5", tmp_path / "in", size=SIDE).changed  # over white
    assert (
        np.abs(
            read_pictures([tmp_path / "in" / "a" / "0.png"], SHAPE, {})[0][0]
            - composed(COLOURS, ALPHA, (255, 255, 255))
        ).max()
        <= 1
    )


def test_the_second_view_in_a_jpeg_of_a_phone_is_no_frame(tmp_path):
    picture = Image.new("RGB", (SIDE, SIDE), "red")
    picture.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[picture])
    with Image.open(tmp_path / "x.jpg") as found:
        assert found.n_frames == 2
    assert not decode(tmp_path / "x.jpg", SHAPE, OTHER).frames


def test_the_first_frame_is_that_of_the_picture_alone(tmp_path):
    frames = [Image.fromarray(np.roll(RGBA, step, axis=0)) for step in range(3)]
    for suffix, options in (("webp", {"lossless": True, "exact": True}), ("png", {}), ("tif", {})):
        frames[0].save(tmp_path / f"one.{suffix}", **options)
        frames[0].save(
            tmp_path / f"all.{suffix}", save_all=True, append_images=frames[1:], **options
        )
        one, several = (
            decode(tmp_path / f"{name}.{suffix}", SHAPE, OTHER) for name in ("one", "all")
        )
        assert (
            several.frames
            and not one.frames
            and several.transparent
            and np.array_equal(one.pixels, several.pixels)
        )
    Image.fromarray(PALETTE.astype(np.uint8)).save(
        tmp_path / "all.gif", save_all=True, append_images=frames[1:]
    )
    animated = decode(tmp_path / "all.gif", SHAPE, OTHER)
    assert animated.frames and np.array_equal(animated.pixels, PALETTE)
