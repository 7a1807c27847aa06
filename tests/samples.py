"""Small files in the published formats, written byte by byte without Ensync's own code, and
where published data may lie.
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensync.storage import prepare as preparing
from ensync.storage.request import PrepareRequest

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT.parent / "shared" / "data"
NAMES = (
    "data_batch_1",
    "data_batch_2",
    "data_batch_3",
    "data_batch_4",
    "data_batch_5",
    "test_batch",
)


def prepare(name, target=None, directory=None, progress=lambda *_: None, **options):
    """Prepare a dataset by its options."""
    request = PrepareRequest(name, target=target, directory=directory, **options)
    return preparing.prepare(request, progress)


def published(name: str) -> Path:
    """Return the directory of published files, or skip the test that wants them."""
    if not (PUBLISHED / name).is_dir():
        pytest.skip(f"no published files in ../shared/data/{name}")
    return PUBLISHED / name


def pictures(rows: int, height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """Return random images uint8 (rows, height, width, channels)."""
    return np.random.default_rng(seed).integers(
        0, 256, (rows, height, width, channels), dtype=np.uint8
    )


def idx_images(images: np.ndarray) -> bytes:
    """Return an IDX image file of uint8 (rows, height, width)."""
    return struct.pack(">4I", 0x803, *images.shape) + images.tobytes()


def idx_labels(labels) -> bytes:
    """Return an IDX label file."""
    return struct.pack(">2I", 0x801, len(labels)) + bytes(labels)


def write_idx(
    directory: Path, train: int = 40, test: int = 20
) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Write the four .gz files; return {split: (images (rows, 5, 4), labels)}."""
    directory.mkdir(parents=True, exist_ok=True)
    made = {}
    for split, prefix, rows in (("train", "train", train), ("test", "t10k", test)):
        images, labels = pictures(rows, 5, 4, 1, rows)[..., 0], [row % 10 for row in range(rows)]
        (directory / f"{prefix}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(idx_images(images))
        )
        (directory / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(idx_labels(labels))
        )
        made[split] = images, labels
    return made


def cifar_binary(images: np.ndarray, labels) -> bytes:
    """Return a binary batch: label, then the red, green and blue planes, image after image."""
    parts = [
        bytes([label]) + b"".join(image[:, :, channel].tobytes() for channel in range(3))
        for image, label in zip(images, labels, strict=True)
    ]
    return b"".join(parts)


def cifar_pickle(images: np.ndarray, labels) -> bytes:
    """Return a python batch: the opcodes of the published ones, put together by hand (what
    Python 2 and NumPy 1 wrote).
    """

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    def number(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    data = b"".join(image[:, :, channel].tobytes() for image in images for channel in range(3))
    dtype = b"cnumpy\ndtype\n" + text("u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text("|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + number(0) + b"tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        + b"cnumpy\nndarray\n"
        + number(0)
        + b"\x85"
        + text("b")
        + b"\x87R"
    )
    array += (
        b"("
        + number(1)
        + number(len(images))
        + number(3072)
        + b"\x86"
        + dtype
        + b"\x89"
        + b"T"
        + struct.pack("<i", len(data))
        + data
        + b"tb"
    )
    items = (
        text("batch_label")
        + text("a batch")
        + text("labels")
        + b"]("
        + b"".join(map(number, labels))
        + b"e"
        + text("data")
        + array
    )
    return b"\x80\x02}q\x01(" + items + b"u."


def write_cifar(directory: Path, kind: str, rows: int = 20) -> tuple[np.ndarray, list[int]]:
    """Write six batches of `rows` images as "bin" or "py"; return all images (6 * rows, 32, 32,
    3) and labels.
    """
    directory.mkdir(parents=True, exist_ok=True)
    images, labels = pictures(6 * rows, 32, 32, 3), [row % 10 for row in range(6 * rows)]
    for place, name in enumerate(NAMES):
        part = slice(place * rows, (place + 1) * rows)
        write = cifar_binary if kind == "bin" else cifar_pickle
        (directory / (name + (".bin" if kind == "bin" else ""))).write_bytes(
            write(images[part], labels[part])
        )
    return images, labels


def csv_lines(images: np.ndarray, labels) -> list[str]:
    """Return one line a row: label, then the pixels in row order."""
    return [
        ",".join(map(str, [label, *image.ravel().tolist()]))
        for image, label in zip(images, labels, strict=True)
    ]


def write_csv(
    path: Path, rows: int = 30, side: int = 4, channels: int = 1, header: bool = False
) -> tuple[np.ndarray, list[int]]:
    """Write a CSV file; return images (rows, side, side, channels) and labels."""
    images, labels = pictures(rows, side, side, channels, rows), [row % 3 for row in range(rows)]
    lines = csv_lines(images, labels)
    if header:
        lines.insert(0, ",".join(["label", *(f"pixel{place}" for place in range(images[0].size))]))
    path.write_text("\n".join(lines) + "\n")
    return images, labels


def write_pictures(
    directory: Path, classes=("cat", "dog"), rows: int = 6, suffix: str = "png", size=(12, 9)
) -> None:
    """Write random colour pictures (width, height) into one folder per class."""
    for place, name in enumerate(classes):
        (directory / name).mkdir(parents=True, exist_ok=True)
        for row in range(rows):
            image = pictures(1, size[1], size[0], 3, 100 * place + row)[0]
            Image.fromarray(image).save(directory / name / f"{row:03}.{suffix}")


def write_classes(place: Path, write, names=("x.png", "y.png")) -> None:
    """Let write(path, seed) make the pictures of two classes."""
    for row, label in enumerate(("a", "b")):
        (place / label).mkdir(parents=True)
        for number, name in enumerate(names):
            write(place / label / name, 2 * row + number)


def png_with_key(bits: int, kind: int, rows: list[bytes], transparent: bytes) -> bytes:
    """Return a PNG file of 8 x 8 with a tRNS chunk: no library writes all of them."""

    def part(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = part(b"IHDR", struct.pack(">2I5B", 8, 8, bits, kind, 0, 0, 0))
    body = part(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + part(b"tRNS", transparent) + body + part(b"IEND", b"")


def tar(members, end: bytes = bytes(1024)) -> bytes:
    """Return a tar archive (ustar) of (name, bytes), or (name, bytes, type, link), put together by
    hand; a name that ends in a slash is a folder.
    """
    parts = []
    for name, data, *more in members:
        kind, link = more or ("5" if name.endswith("/") else "0", "")
        fields = [name.encode(), b"0000644", b"0000000", b"0000000", b"%011o" % len(data)]
        fields += [b"%011o" % 0, b" " * 8, kind.encode(), link.encode(), b"ustar\x0000"]
        sizes = (100, 8, 8, 8, 12, 12, 8, 1, 100, 8)
        head = b"".join(field.ljust(size, b"\0") for field, size in zip(fields, sizes))
        total = b"%06o\0 " % sum(head)
        head = (head[:148] + total + head[156:]).ljust(512, b"\0")
        parts += [head, data, bytes(-len(data) % 512)]
    return b"".join(parts) + end


def folder_members(directory: Path) -> list[tuple[str, bytes]]:
    """Return (path, bytes) of all files below a directory, sorted."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return [(str(path.relative_to(directory)), path.read_bytes()) for path in files]
