"""Compiled kernels on disk are checked when they are read. One that is damaged, stale or of another
kernel is compiled again.

numba writes them without a checksum and without fsync, so that a machine that stops at the wrong
moment leaves files that fail to load at every later start. Its index and data are two files, which
may come from different runs where two processes compile at once.
"""

import hashlib
import pickle
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
