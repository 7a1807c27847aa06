"""Published and own datasets -> arrays: one file for each format, each ending in a Source."""

from ensync.storage.sources.cifar import read_cifar10
from ensync.storage.sources.csv import read_csv
from ensync.storage.sources.csv_look import Asked
from ensync.storage.sources.decoding import Recipe, recipe
from ensync.storage.sources.digits import read_digits
from ensync.storage.sources.idx import read_idx
from ensync.storage.sources.images import read_images
from ensync.storage.sources.source import Source
from ensync.storage.sources.to_predict import read_pictures

__all__ = [
    "Asked",
    "Recipe",
    "Source",
    "read_cifar10",
    "read_csv",
    "read_digits",
    "read_idx",
    "read_images",
    "read_pictures",
    "recipe",
]
