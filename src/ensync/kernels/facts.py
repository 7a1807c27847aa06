"""Facts for `ensync doctor`: numba's threading layer, and the directory of compiled kernels."""

import os
import tempfile

import numpy as np

from ensync.kernels.optim import updates


def threading_layer() -> str:
    """Return numba's threading layer ("omp", "tbb", "workqueue"), known once a threaded kernel
    has run.
    """
    import numba

    vector = np.ones(1 << 20, np.float32)
    updates.sgd(vector, vector.copy(), 0.0, 0.0)
    try:
        return numba.threading_layer()
    except ValueError:
        return "one thread"


def kernel_cache() -> tuple[str, str]:
    """Return the directory of compiled kernels, and why it cannot be written or keeps nothing,
    "" when it does.
    """
    directory = os.environ["NUMBA_CACHE_DIR"]
    if os.path.basename(directory).startswith("ensync-numba-"):
        return directory, "the cache directory cannot be written"
    try:
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        return directory, f"{directory}: {error.strerror}"
    return directory, ""
