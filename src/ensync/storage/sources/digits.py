"""The 1,797 handwritten digits that scikit-learn carries: real data without a network and
without a file of ours.
"""

import hashlib
from importlib.resources import files

import numpy as np

from ensync.storage.published import DIGITS
from ensync.storage.sources.source import Source

BRIGHTEST = 16  # the images count dark pixels in blocks of 4 x 4


def read_digits() -> Source:
    """Return the digits, images uint8 (1797, 8, 8, 1) scaled from 0..16 to 0..255 and rounded;
    no test split is published.
    """
    from sklearn.datasets import (
        load_digits,
    )  # takes about a second to import, and only this source needs it

    digits = load_digits()
    pixels = digits.images.astype(np.int64)
    images = ((pixels * 255 + BRIGHTEST // 2) // BRIGHTEST).astype(np.uint8)[..., None]
    digest = hashlib.sha256(
        (files("sklearn.datasets.data") / "digits.csv.gz").read_bytes()
    ).hexdigest()
    return Source(
        name="digits",
        images={"train": images},
        labels={"train": digits.target.astype(np.int64)},
        class_names=list(DIGITS),
        source="UCI Optical Recognition of Handwritten Digits (test part): E. Alpaydin, C. "
        "Kaynak 1998, as carried by scikit-learn",
        licence="CC BY 4.0",
        checksums={"digits.csv.gz": f"sha256:{digest}"},
    )
