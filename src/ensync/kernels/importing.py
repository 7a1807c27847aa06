"""Import numba without what it imports on the chance that somebody needs it."""

import importlib
import os
import sys
import threading

SETTINGS = ".numba_config.yaml"  # which numba reads in the current directory


def import_numba() -> None:
    """Import numba, and neither coverage, which it needs where coverage measures already, nor
    yaml, which it needs for a file of settings: a tenth of the processor time of a start. Both are
    hidden meanwhile, so that beside other threads, which may import them, this is a plain import.
    """
    names = ["coverage"] if os.path.exists(SETTINGS) else ["coverage", "yaml"]
    alone = threading.active_count() == 1
    hidden = [name for name in names if alone and name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it raises ImportError
    try:
        importlib.import_module("numba")
    finally:
        for name in hidden:
            del sys.modules[name]
