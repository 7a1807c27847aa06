"""Compiled kernels on disk are checked when they are read: a damaged file is compiled anew instead of run or refused.

numba writes them without a checksum and without fsync, so that a machine that stops at the wrong moment leaves files
that fail to load at every later start.
"""

import hashlib
import pickle

from numba.core.caching import IndexDataCacheFile

DIGEST_BYTES = 32


class CheckedCacheFile(IndexDataCacheFile):
    """numba's cache file with a SHA-256 behind each entry; unreadable files are missing files."""

    def _load_index(self) -> dict:
        try:
            return super()._load_index()
        except Exception:   # unpickling garbage raises anything
            return {}

    def _dump(self, obj) -> bytes:
        data = super()._dump(obj)
        return data + hashlib.sha256(data).digest()   # pickle ignores what follows

    def _load_data(self, name: str):
        with open(self._data_path(name), "rb") as file:
            data = file.read()
        if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
            raise OSError(f"{name} is damaged")   # which numba takes for a missing file
        return pickle.loads(data)


def check_cache_files() -> None:
    """Let numba use checked cache files from now on; without effect where this numba keeps its cache in another way."""
    import numba.core.caching

    methods = ("_load_index", "_load_data", "_dump", "_data_path")
    if all(hasattr(IndexDataCacheFile, name) for name in methods):
        numba.core.caching.IndexDataCacheFile = CheckedCacheFile
