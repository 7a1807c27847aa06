"""Folders of pictures: turned, cropped and resized as promised; what cannot be decoded is named."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from samples import write_pictures

from ensync.core.errors import EnsyncError
from ensync.storage.sources import picture_rows as module
from ensync.storage.sources.decoding import Recipe
from ensync.storage.sources.images import read_images
from ensync.storage.sources.to_predict import read_pictures
from ensync.storage.work import Work

ALL = np.arange


def test_folders_become_classes_and_pictures_rows(tmp_path):
    write_pictures(tmp_path, ("dog", "cat", "owl"), 4, size=(8, 8))
    source = read_images(tmp_path, 8)
    assert (
        source.class_names == ["cat", "dog", "owl"]
        and source.labels["train"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    )
    expected = np.stack([np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("*/*.png"))])
    assert np.array_equal(source.images["train"][ALL(12)], expected)
    assert np.array_equal(source.images["train"][np.array([5, 0, 5])], expected[[5, 0, 5]])


def test_train_and_test_folders_are_splits(tmp_path):
    write_pictures(tmp_path / "train", ("a", "b"), 3)
    write_pictures(tmp_path / "test", ("b",), 2)
    source = read_images(tmp_path, 6, recipe=Recipe(greyscale=True))
    assert source.images["train"].shape == (6, 6, 6, 1) and source.images["test"].shape == (
        2,
        6,
        6,
        1,
    )
    assert source.labels["test"].tolist() == [1, 1]
    write_pictures(tmp_path / "test", ("c",), 1)
    with pytest.raises(EnsyncError, match="test has 'c', which the training pictures lack"):
        read_images(tmp_path, 6)
    write_pictures(tmp_path / "extra", ("a",), 1)
    with pytest.raises(EnsyncError, match="has 'extra' beside train"):
        read_images(tmp_path, 6)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp", "ppm"])
def test_every_format_is_cropped_to_its_centre_and_resized(tmp_path, suffix):
    wide = np.zeros((20, 60, 3), np.uint8)  # left third red, middle third green, right third blue
    for place in range(3):
        wide[:, 20 * place : 20 * place + 20, place] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(wide).save(tmp_path / name / f"x.{suffix}")
    colour = read_images(tmp_path, 10).images["train"][ALL(1)][0].astype(int)
    assert np.abs(colour[2:-2, 2:-2] - [0, 255, 0]).max() < 40
    grey = (
        read_images(tmp_path, 10, recipe=Recipe(greyscale=True))
        .images["train"][ALL(1)][0, 2:-2, 2:-2, 0]
        .astype(int)
    )
    assert np.abs(grey - 150).max() < 25  # ITU-R 601: 0.587 * 255


def test_pictures_are_turned_as_exif_says(tmp_path):
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(picture).save(
            tmp_path / name / "x.jpg", exif=exif if name == "b" else b"", quality=95
        )
    upright, turned = read_images(tmp_path, 16).images["train"][ALL(2)].astype(int)
    assert np.abs(upright[::-1] - turned).max() < 8 and upright[0, 0, 0] > 240


def test_a_broken_exif_note_does_not_lose_the_picture(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), (0, 255, 0)).save(
            tmp_path / name / "x.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\xff\xff\xff\xff"
        )
    assert abs(int(read_images(tmp_path, 8).images["train"][ALL(1)][0, 4, 4, 1]) - 255) < 5


def test_sixteen_bits_palettes_and_transparency_become_eight_bits(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(ramp).save(tmp_path / "a" / "deep.png")
    Image.fromarray((ramp >> 8).astype(np.uint8)).convert("P").save(tmp_path / "a" / "palette.png")
    Image.fromarray((ramp >> 8).astype(np.uint8)).convert("RGBA").save(tmp_path / "b" / "alpha.png")
    rows = read_images(tmp_path, 8, recipe=Recipe(greyscale=True)).images["train"][ALL(3)][..., 0]
    assert all(np.array_equal(row, ramp >> 8) for row in rows)


def test_a_large_jpeg_is_resized_as_if_decoded_whole(tmp_path):
    y, x = np.mgrid[:400, :400]
    picture = np.stack([x * 255 // 399, y * 255 // 399, (x + y) * 255 // 798], axis=-1).astype(
        np.uint8
    )
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(picture).save(tmp_path / name / "x.jpg", quality=95)
    ours = read_images(tmp_path, 32).images["train"][ALL(1)][0].astype(int)
    theirs = np.asarray(
        Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR)
    ).astype(int)
    assert np.abs(ours - theirs).max() < 6


def bomb(side: int) -> bytes:
    """Return a PNG of a few hundred bytes that declares side x side pixels."""

    def part(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", header)
        + part(b"IDAT", zlib.compress(bytes(1000)))
        + part(b"IEND", b"")
    )


def png(size=(9, 9)) -> bytes:
    """Return a PNG file."""
    out = io.BytesIO()
    Image.new("RGB", size).save(out, "png")
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.png", b"", "is empty (0 bytes)"),
        ("text.png", b"not a picture", "cannot be decoded: its content is none of PNG, JPEG"),
        (
            "pointer.png",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "is a pointer to data that was not fetched",
        ),
        ("cut.png", png((40, 40))[:-40], "cannot be decoded"),
        ("flipped.png", png()[:50] + b"\xff" + png()[51:], "cannot be decoded"),
        ("bomb.png", bomb(60_000), "declares more than 50,000,000 pixels"),
        ("large.png", bomb(8_000), "declares 8000 x 8000 pixels"),
        (
            "postscript.png",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
            "cannot be decoded",
        ),
    ],
)
def test_broken_pictures_are_refused_by_name_or_skipped_on_request(
    tmp_path, name, content, sentence
):
    write_pictures(tmp_path, rows=2)
    (tmp_path / "cat" / name).write_bytes(content)
    with pytest.raises(EnsyncError) as caught:
        read_images(tmp_path, 8)
    assert f"1 of 5 pictures are bad: cat/{name} {sentence}" in str(caught.value)
    source = read_images(tmp_path, 8, bad_rows="skip")
    assert source.labels["train"].tolist() == [0, 0, 1, 1] and source.images["train"].shape == (
        4,
        8,
        8,
        3,
    )
    assert source.notes[0].startswith(f"1 of 5 pictures left out: cat/{name} {sentence}")


def test_the_first_few_broken_pictures_are_named(tmp_path):
    write_pictures(tmp_path, rows=2)
    for row in range(8):
        (tmp_path / "cat" / f"bad{row}.png").touch()
    with pytest.raises(
        EnsyncError, match="8 of 12 pictures are bad: cat/bad0.png .* cat/bad4.png .* and 3 more"
    ):
        read_images(tmp_path, 8)


def test_other_files_are_counted_and_left_out(tmp_path):
    write_pictures(tmp_path, rows=2)
    (tmp_path / "cat" / "Thumbs.db").touch()
    (tmp_path / "cat" / ".hidden.png").touch()
    (tmp_path / "cat" / "folder.png").mkdir()
    (tmp_path / "readme.txt").touch()
    source = read_images(tmp_path, 8)
    assert len(source.labels["train"]) == 4 and source.notes == [
        "left out, no picture by its name: 1 (readme.txt)",
        "left out, hidden: 1 (cat/.hidden.png)",
        "left out, made by the system: 1 (cat/Thumbs.db)",
        "left out, a folder within a folder of pictures: 1 (cat/folder.png/ with 0 pictures)",
    ]


def test_wrong_folders_and_sizes_have_their_sentences(tmp_path):
    for size in (0, -1, 100_000):
        with pytest.raises(EnsyncError, match=f"--size {size}"):
            read_images(tmp_path, size)
    with pytest.raises(EnsyncError, match="does not exist"):
        read_images(tmp_path / "nowhere", 8)
    with pytest.raises(EnsyncError, match="has no folders"):
        read_images(tmp_path, 8)
    (tmp_path / "cat").mkdir()
    with pytest.raises(EnsyncError, match="has no pictures"):
        read_images(tmp_path, 8)
    (tmp_path / "do\x1bg").mkdir()
    with pytest.raises(EnsyncError, match="do.x1bg"):
        read_images(tmp_path, 8)


def test_a_picture_that_vanishes_before_it_is_stored_is_named(tmp_path):
    write_pictures(tmp_path, rows=2)
    source = read_images(tmp_path, 8)
    (tmp_path / "dog" / "001.png").unlink()
    with pytest.raises(EnsyncError, match="dog/001.png is not a file"):
        source.images["train"][ALL(4)]


def test_pictures_to_predict_take_the_shape_of_the_dataset(tmp_path):
    write_pictures(tmp_path, ("a",), 3, size=(30, 10))
    pixels, names, notes = read_pictures(
        [tmp_path / "a", tmp_path / "a" / "001.png"], (6, 5, 1), {}
    )
    assert notes == []
    assert (
        pixels.shape == (4, 6, 5, 1)
        and pixels.dtype == np.uint8
        and names[3] == str(tmp_path / "a" / "001.png")
    )
    assert np.array_equal(pixels[1], pixels[3])
    (tmp_path / "a" / "002.png").write_bytes(b"x")
    with pytest.raises(
        EnsyncError, match=f"1 of 3 pictures are bad: {tmp_path}/a/002.png cannot be decoded"
    ):
        read_pictures([tmp_path / "a"], (6, 5, 1), {})
    with pytest.raises(EnsyncError, match="does not exist"):
        read_pictures([tmp_path / "nowhere.png"], (6, 5, 1), {})


def test_rows_come_back_in_parts_without_holding_all(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 3)
    write_pictures(tmp_path, rows=4)
    seen = []
    read_images(tmp_path, 8, work=Work(lambda *step: seen.append(step)))
    assert seen == [("checking train pictures", done, 8) for done in (3, 6, 8)]
