"""Published and own datasets: one table of the sources, and one file for each format.

SOURCES is what `ensync data prepare` offers. Its options, help texts and refusals come from here.
A reader loads its own libraries when it is called, so that the table costs nothing to import.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ensync.storage.request import PrepareRequest

if TYPE_CHECKING:
    from ensync.storage.sources.checking import Asked
    from ensync.storage.sources.source import Source
    from ensync.storage.work import Work


@dataclass(frozen=True)
class SourceSpec:
    """A source of datasets.

    content: what it holds, and for own files how they must look; files: what --from takes; example:
    of the options of a command; options: flags of PrepareRequest beside --to, --validation and
    --seed, which all take; read(request, work) returns the dataset, or raises EnsyncError.
    """

    name: str
    content: str
    files: str
    example: str
    options: tuple[str, ...]
    read: "Callable[[PrepareRequest, Work], Source]"


def _digits(request: PrepareRequest, work: "Work") -> "Source":
    from ensync.storage.sources.digits import read_digits

    return read_digits()


def _idx(request: PrepareRequest, work: "Work") -> "Source":
    from ensync.storage.sources.idx import read_idx

    return read_idx(_files(request, work), request.name)


def _cifar10(request: PrepareRequest, work: "Work") -> "Source":
    from ensync.storage.sources.cifar import read_cifar10

    return read_cifar10(_files(request, work))


def _files(request: PrepareRequest, work: "Work") -> Path:
    """Return where the published files are, which may have to be fetched."""
    from ensync.storage.downloads import fetch

    return fetch(request.name, progress=work.progress) if request.download else request.path()


def _csv(request: PrepareRequest, work: "Work") -> "Source":
    from ensync.storage.sources.csv import read_csv
    from ensync.storage.sources.csv_look import TableOptions

    table = TableOptions(request.label, request.delimiter, request.header, request.shape)
    return read_csv(request.path(), request.bad_rows, request.validation_from, table)


def _images(request: PrepareRequest, work: "Work") -> "Source":
    from ensync.storage.sources.images import read_images

    asked = _asked(request)
    return read_images(
        request.path(),
        asked.size,
        asked.recipe,
        asked.bad_rows,
        request.validation_from,
        work,
    )


def _tar(request: PrepareRequest, work: "Work") -> "Source":
    from ensync.storage.sources.streams.samples import Choice
    from ensync.storage.sources.streams.tar import read_tar

    choice = Choice(request.image_column, request.label_column)
    return read_tar(request.path(), _asked(request), choice, work)


def _parquet(request: PrepareRequest, work: "Work") -> "Source":
    from ensync.storage.sources.streams.parquet import read_parquet
    from ensync.storage.sources.streams.samples import Choice

    choice = Choice(request.image_column, request.label_column)
    return read_parquet(request.path(), _asked(request), choice, work)


def _asked(request: PrepareRequest) -> "Asked":
    """Return what the user asks of pictures."""
    from ensync.storage.sources.checking import Asked
    from ensync.storage.sources.decoding import recipe

    return Asked(
        request.size,
        recipe(request.background, request.values, request.greyscale),
        request.bad_rows,
    )


def _npz(request: PrepareRequest, work: "Work") -> "Source":
    from ensync.storage.sources.decoding import recipe
    from ensync.storage.sources.npz import read_npz

    return read_npz(request.path(), recipe(values=request.values).values)


_PUBLISHED = ("from", "download")
_PICTURES = ("bad-rows", "size", "greyscale", "background", "range", "jobs", "restart")
SOURCES = {
    spec.name: spec
    for spec in (
        SourceSpec(
            name="digits",
            content="1,797 handwritten digits, 8 x 8 grey, 10 classes",
            files="none, scikit-learn carries them",
            example="",
            options=(),
            read=_digits,
        ),
        SourceSpec(
            name="mnist",
            content="60,000 + 10,000 handwritten digits, 28 x 28 grey, 10 classes",
            files="the four published IDX files",
            example="--download",
            options=_PUBLISHED,
            read=_idx,
        ),
        SourceSpec(
            name="fashion-mnist",
            content="60,000 + 10,000 pieces of clothing, 28 x 28 grey, 10 classes",
            files="the four published IDX files",
            example="--download",
            options=_PUBLISHED,
            read=_idx,
        ),
        SourceSpec(
            name="cifar-10",
            content="50,000 + 10,000 photographs, 32 x 32 colour, 10 classes",
            files="the published archive, or its batches",
            example="--from downloads/",
            options=_PUBLISHED,
            read=_cifar10,
        ),
        SourceSpec(
            name="csv",
            content="your table: a label and N*N or N*N*3 pixels, one image a line",
            files="FILE.csv, or a directory with train.csv and perhaps val.csv, test.csv",
            example="--from table.csv --label digit --shape 28x28 --bad-rows skip",
            options=(
                "from",
                "validation-from",
                "bad-rows",
                "label",
                "delimiter",
                "header",
                "shape",
            ),
            read=_csv,
        ),
        SourceSpec(
            name="images",
            content="your pictures: one folder per class, resized and centre-cropped",
            files="a directory of class folders, perhaps in train/, val/, test/",
            example="--from photos/ --size 64",
            options=("from", "validation-from", *_PICTURES),
            read=_images,
        ),
        SourceSpec(
            name="tar",
            content="your pictures in .tar or .tar.gz: folders, a tar of each class, WebDataset",
            files="FILE.tar, a directory of them, or a pattern such as 'train-{000..012}.tar'",
            example="--from ILSVRC2012_img_train.tar --size 64 --bad-rows skip",
            options=("from", "image-column", "label-column", *_PICTURES),
            read=_tar,
        ),
        SourceSpec(
            name="parquet",
            content="your pictures, encoded in a column, as the Hugging Face hub publishes them",
            files="FILE.parquet, a directory of them, or a pattern",
            example="--from food101/data/ --label-column label",
            options=("from", "image-column", "label-column", *_PICTURES),
            read=_parquet,
        ),
        SourceSpec(
            name="npz",
            content="your arrays: NumPy's x_train, y_train, x_test, y_test and their likes",
            files="FILE.npz, also as Keras and MedMNIST publish them",
            example="--from arrays.npz --range 0,1",
            options=("from", "range"),
            read=_npz,
        ),
    )
}
