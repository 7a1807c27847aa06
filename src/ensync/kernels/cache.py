"""Compiled kernels on disk are checked when they are read. One that is damaged, stale or of another
kernel is compiled again. And what numba does at a start for nothing is left out.

numba writes them without a checksum and without fsync, so that a machine that stops at the wrong
moment leaves files that fail to load at every later start. Its index and data are two files, which
may come from different runs where two processes compile at once.
"""

import hashlib
import importlib.util
import pickle
import sys
import warnings

from numba.core.caching import IndexDataCacheFile

DIGEST_BYTES = 32


class CheckedCacheFile(IndexDataCacheFile):
    """numba's cache file with a SHA-256 behind each entry and its source's stamp and key within;
    unreadable files are missing files.
    """

    cannot_be_kept = False

    def load(self, key):
        """Return the entry of this key, None when there is none that is whole and its own."""
        try:
            own, data = super().load(key)
        except Exception:  # none; or unpickling garbage, which raises anything
            return None
        return data if own == (self._source_stamp, key) else None

    def save(self, key, data) -> None:
        """Write the entry of this key; warn once when it cannot be written, for instance on a
        full disk.
        """
        try:
            super().save(key, ((self._source_stamp, key), data))
        except OSError as error:
            if not CheckedCacheFile.cannot_be_kept:
                warnings.warn(
                    f"compiled kernels cannot be kept ({error}), so the next start compiles "
                    "again; set NUMBA_CACHE_DIR",
                    stacklevel=2,
                )
            CheckedCacheFile.cannot_be_kept = True

    def _load_index(self) -> dict:
        try:
            return super()._load_index()
        except Exception:
            return {}

    def _dump(self, obj) -> bytes:
        data = super()._dump(obj)
        return data + hashlib.sha256(data).digest()  # pickle ignores what follows

    def _load_data(self, name: str):
        with open(self._data_path(name), "rb") as file:
            data = file.read()
        if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
            raise OSError(f"{name} is damaged")  # which numba takes for a missing file
        return pickle.loads(data)


def check_cache_files() -> None:
    """Let numba use checked cache files from now on; without effect where this numba keeps its
    cache in another way.
    """
    import numba.core.caching

    methods = ("load", "save", "_load_index", "_load_data", "_dump", "_data_path")
    if all(hasattr(IndexDataCacheFile, name) for name in methods):
        numba.core.caching.IndexDataCacheFile = CheckedCacheFile


def try_directories_once() -> None:
    """Let numba try each directory of the cache once, by a file that it makes there, and not for
    each of two hundred kernels at each start of a rank; without effect where this numba does so in
    another way.
    """
    import numba.core.caching

    locator = getattr(numba.core.caching, "_CacheLocator", None)
    ensure = getattr(locator, "ensure_cache_path", None)
    if locator is None or ensure is None:
        return
    tried = set()

    def ensure_once(self) -> None:
        path = self.get_cache_path()
        if path not in tried:
            ensure(self)
            tried.add(path)

    locator.ensure_cache_path = ensure_once


def postpone_scipy() -> None:
    """Let numba import scipy.linalg where a function needs BLAS, which no kernel does, and not with
    the first kernel of any kind, only to learn whether it is there: 130 modules, an eighth of the
    processor time of a start. Without effect where this numba learns it in another way.
    """
    from numba.np import linalg

    ensure_blas = getattr(linalg, "ensure_blas", None)
    early = "numba.np.arraymath" not in sys.modules
    if ensure_blas is None or not early or importlib.util.find_spec("scipy") is None:
        return
    linalg.ensure_blas = lambda: None
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        linalg.ensure_blas = ensure_blas
