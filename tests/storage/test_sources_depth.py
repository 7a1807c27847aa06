"""Pictures of more than 8 bits are scaled by one rule or refused; checked with numpy."""

import struct

import numpy as np
import pytest
from PIL import Image
from samples import pictures, png_with_key, prepare, write_classes

from ensync.core.errors import EnsyncError
from ensync.storage.dataset import open_dataset
from ensync.storage.sources.decoding import Recipe, decode, recipe
from ensync.storage.sources.images import read_images
from ensync.storage.sources.to_predict import read_pictures

SIDE = 8
SHAPE = (SIDE, SIDE, 3)
USUAL = Recipe()
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)
COLOURS = pictures(1, SIDE, SIDE, 3)[0]


def tiff(path, values: np.ndarray, **tags):
    """Write a TIFF with more tags; big-endian, white-is-zero and unsigned ones by hand."""
    Image.fromarray(values).save(
        path, tiffinfo={int(tag[1:]): value for tag, value in tags.items()}
    )


def plain_tiff(path, values: np.ndarray, bits: int, kind: int = 1, photometric: int = 1) -> None:
    """Write an uncompressed TIFF of one strip by hand, in the byte order of `values`."""
    order = ">" if values.dtype.byteorder == ">" else "<"
    tags = [
        (256, SIDE),
        (257, SIDE),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, SIDE),
        (279, values.nbytes),
        (339, kind),
    ]
    entries = b"".join(
        struct.pack(
            order + ("HHIHxx" if tag not in (273, 279) else "HHII"),
            tag,
            3 if tag not in (273, 279) else 4,
            1,
            value,
        )
        for tag, value in tags
    )
    head = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8 + values.nbytes)
    path.write_bytes(
        head + values.tobytes() + struct.pack(order + "H", len(tags)) + entries + bytes(4)
    )


@pytest.mark.parametrize(
    ("write", "asked", "expected"),
    [
        (lambda path: tiff(path, RAMP.astype(np.float32)), "0,1", RAMP * 255),
        (lambda path: tiff(path, (RAMP * 2 - 1).astype(np.float32)), "-1,1", RAMP * 255),
        (lambda path: tiff(path, RAMP.astype(np.float32), t340=0.0, t341=1.0), None, RAMP * 255),
        (lambda path: tiff(path, (RAMP * 255).astype(np.int32)), "0,255", np.floor(RAMP * 255)),
        (
            lambda path: tiff(path, (RAMP * 4095).astype(np.uint16)),
            "0,4095",
            np.floor(RAMP * 4095) / 4095 * 255,
        ),
        (
            lambda path: tiff(path, (RAMP * 4095).astype(np.uint16), t341=4095),
            None,
            np.floor(RAMP * 4095) / 4095 * 255,
        ),
        (
            lambda path: tiff(path, (RAMP * 65535).astype(np.uint16)),
            None,
            np.floor(RAMP * 65535) // 256,
        ),
        (
            lambda path: Image.fromarray((RAMP * 4095).astype(np.uint16)).save(
                path.with_suffix(".png")
            ),
            "0,4095",
            np.floor(RAMP * 4095) / 4095 * 255,
        ),
        (
            lambda path: path.with_suffix(".pgm").write_bytes(
                b"P5 8 8 4095\n" + (RAMP * 4095).astype(">u2").tobytes()
            ),
            None,
            np.floor(RAMP * 4095) // 16,
        ),
        (
            lambda path: plain_tiff(path, (RAMP * 65535).astype(">u2"), 16),
            None,
            np.floor(RAMP * 65535) // 256,
        ),
        (
            lambda path: plain_tiff(path, (RAMP * 65535).astype("<u2"), 16, photometric=0),
            None,
            255 - np.floor(RAMP * 65535) // 256,
        ),
        (
            lambda path: plain_tiff(path, (RAMP * (2**32 - 1)).astype("<u4"), 32),
            None,
            np.floor(RAMP * (2**32 - 1)) // 2**24,
        ),
        (
            lambda path: plain_tiff(path, (RAMP * 30_000 - 10_000).astype("<i2"), 16, 2),
            "-10000,20000",
            RAMP * 255,
        ),
        (
            lambda path: plain_tiff(path, (RAMP * 255).astype("u1"), 8, photometric=0),
            None,
            255 - np.floor(RAMP * 255),
        ),
    ],
)
def test_deep_pictures_are_scaled_from_black_to_white(tmp_path, write, asked, expected):
    write(tmp_path / "x.tif")
    found = decode(next(tmp_path.iterdir()), (SIDE, SIDE, 1), recipe(values=asked))
    assert not found.problem and np.abs(found.pixels[..., 0] - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            RAMP.astype(np.float32),
            "holds floats (0 to 1) and does not say which values are black and white",
        ),
        (
            (RAMP * 255).astype(np.int32),
            "holds signed integers (0 to 255) and does not say which values are black and white",
        ),
        (np.where(RAMP > 0.9, np.nan, RAMP).astype(np.float32), "holds values that are no numbers"),
    ],
)
def test_deep_pictures_that_declare_no_range_are_refused_by_name(tmp_path, values, sentence):
    write_classes(tmp_path, lambda path, _seed: tiff(path, values), ["x.tif"])
    with pytest.raises(EnsyncError) as caught:
        read_images(tmp_path, SIDE)
    assert f"2 of 2 pictures are bad: a/x.tif {sentence}" in str(caught.value)
    with pytest.raises(EnsyncError, match="x.tif " + sentence.split("(")[0]):
        read_pictures([tmp_path / "a" / "x.tif"], SHAPE, {})


def test_twelve_bits_in_a_file_of_sixteen_are_refused_until_their_range_is_given(tmp_path):
    def twelve(path, seed):
        Image.fromarray(np.roll(RAMP * 4093, seed).astype(np.uint16)).save(path)

    write_classes(tmp_path / "in", twelve, [f"{n}.png" for n in range(5)])
    with pytest.raises(
        EnsyncError,
        match="no picture of 16 bits holds a value above 4093 .*fewer bits, 0 to 4095.* --range",
    ):
        prepare("images", tmp_path / "d.h5", tmp_path / "in", size=SIDE)
    with pytest.raises(
        EnsyncError, match="seem to be of fewer bits, 0 to 4095.*convert them to 8 bits"
    ):
        read_pictures([tmp_path / "in" / "a" / "0.png"], SHAPE, {})
    done = prepare(
        "images", tmp_path / "d.h5", tmp_path / "in", size=SIDE, values="0,4095", greyscale=True
    )
    assert "more than 8 bits, scaled from 0 to 4095: 10 (" in done.notes[0]
    with open_dataset(done.path) as dataset:
        pixels = read_pictures(
            [tmp_path / "in" / "a" / "0.png"], (SIDE, SIDE, 1), dataset.preparation
        ).pixels
        assert dataset.read("train", 0, 1).max() > 250
    assert np.abs(pixels[0, ..., 0] - np.floor(RAMP * 4093) / 4095 * 255).max() <= 0.51


def test_colours_of_twelve_bits_are_refused_with_what_helps_them(tmp_path):
    def twelve(path, seed):
        rows = [struct.pack(">24H", *[(97 * seed + place) % 4096 for place in range(24)])] * SIDE
        path.write_bytes(png_with_key(16, 2, rows, bytes(6)))

    write_classes(tmp_path / "in", twelve)
    with pytest.raises(EnsyncError, match="fewer bits.*; convert the pictures to 8 bits"):
        prepare("images", tmp_path / "d.h5", tmp_path / "in", size=SIDE)


def test_a_range_without_deep_pictures_is_refused(tmp_path):
    write_classes(tmp_path, lambda path, seed: Image.fromarray(np.roll(COLOURS, seed)).save(path))
    with pytest.raises(EnsyncError, match="--range with pictures of 8 bits only"):
        read_images(tmp_path, SIDE, recipe=recipe(values="0,1"))


def test_dark_pictures_are_predicted_when_bright_ones_were_trained_on(tmp_path):
    write_classes(
        tmp_path / "in",
        lambda path, seed: Image.fromarray(np.roll(RAMP * 65535, seed).astype(np.uint16)).save(
            path
        ),
        [f"{n}.png" for n in range(5)],
    )
    Image.fromarray((RAMP * 9000).astype(np.uint16)).save(tmp_path / "dark.png")
    with open_dataset(
        prepare("images", tmp_path / "d.h5", tmp_path / "in", size=SIDE).path
    ) as dataset:
        assert (
            read_pictures([tmp_path / "dark.png"], SHAPE, dataset.preparation).pixels.max()
            == 9000 >> 8
        )


def test_ranges_that_differ_from_picture_to_picture_are_statistics_and_no_rule(tmp_path):
    write_classes(
        tmp_path,
        lambda path, seed: tiff(
            path, (RAMP + seed).astype(np.float32), t340=float(seed), t341=seed + 1.0
        ),
        ["x.tif"],
    )
    with pytest.raises(
        EnsyncError,
        match="different values for black and white: 0 to 1 in a/x.tif; 2 to 3 in b/x.tif; .*range",
    ):
        read_images(tmp_path, SIDE)
    source = read_images(tmp_path, SIDE, recipe=recipe(values="0,3"))
    assert "more than 8 bits, scaled from 0 to 3: 2 (a/x.tif; b/x.tif)" in source.notes
    source = read_images(tmp_path, SIDE, recipe=recipe(values="0.5,2.5"))
    assert "values outside 0.5 to 2.5, cut off: 2 (a/x.tif; b/x.tif)" in source.notes


def test_what_a_tagged_training_set_declares_binds_the_pictures_to_predict(tmp_path):
    write_classes(
        tmp_path / "in",
        lambda path, seed: tiff(path, np.roll(RAMP, seed).astype(np.float32), t340=0.0, t341=1.0),
        [f"{n}.tif" for n in range(5)],
    )
    tiff(tmp_path / "other.tif", RAMP.astype(np.float32), t340=0.2, t341=0.8)
    with open_dataset(
        prepare("images", tmp_path / "d.h5", tmp_path / "in", size=SIDE).path
    ) as dataset:
        assert dataset.preparation["tagged"] == "0,1" and dataset.preparation["deep"] == 1
        with pytest.raises(
            EnsyncError, match="0 to 1 in the training pictures; 0.2 to 0.8 in .*other.tif"
        ):
            read_pictures([tmp_path / "other.tif"], SHAPE, dataset.preparation)


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr", "P"])
def test_other_modes_become_what_pillow_makes_of_them(tmp_path, mode):
    picture = Image.fromarray(np.repeat(np.repeat(COLOURS[:2, :2], 4, 0), 4, 1)).convert(mode)
    picture.save(tmp_path / "x.tif")
    found = decode(tmp_path / "x.tif", SHAPE, USUAL)
    assert not found.transparent and np.array_equal(
        found.pixels, np.asarray(picture.convert("RGB"))
    )


def test_formats_and_samples_that_no_decoder_knows_are_named(tmp_path):
    plain_tiff(tmp_path / "double.tif", RAMP, 64, 3)
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    problems = [decode(path, SHAPE, USUAL).problem for path in sorted(tmp_path.iterdir())]
    assert "TIFF, or one of samples that are not read" in problems[0] and "is HEIC" in problems[1]


def test_lab_and_deep_colours_with_a_range_are_refused_by_reason(tmp_path):
    Image.frombytes("LAB", (SIDE, SIDE), COLOURS.tobytes()).save(tmp_path / "lab.tif")
    assert decode(tmp_path / "lab.tif", SHAPE, USUAL).problem.startswith(
        "has the colours of CIE LAB"
    )
    deep = struct.pack(">24H", *range(0, 65535, 2731)[:24])
    (tmp_path / "deep.png").write_bytes(
        png_with_key(16, 2, [deep] * SIDE, struct.pack(">3H", 1, 1, 1))
    )
    assert (
        "no range can be given"
        in decode(tmp_path / "deep.png", SHAPE, recipe(values="0,4095")).problem
    )
    assert decode(tmp_path / "deep.png", SHAPE, USUAL).depth.largest > 60_000


@pytest.mark.parametrize(
    "options",
    [
        {"background": "greenish"},
        {"background": "#12345680"},
        {"values": "1"},
        {"values": "5,5"},
        {"values": "nan,1"},
    ],
)
def test_colours_and_ranges_that_cannot_be_understood_are_refused(options):
    with pytest.raises(EnsyncError, match="--background|--range"):
        recipe(**options)


def test_turned_pictures_of_16_bits_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(tmp_path / "x.png", exif=exif)
    found = decode(tmp_path / "x.png", (SIDE, SIDE, 1), USUAL).pixels[..., 0]
    assert np.array_equal(found, np.rot90(np.floor(RAMP * 65535) // 256, -1))
