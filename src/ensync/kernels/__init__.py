"""Array kernels compiled by numba: outputs are passed in, nothing is allocated, no policy; the
only home of numba.
"""

from ensync.kernels.importing import import_numba
from ensync.kernels.threads import prepare_environment

prepare_environment()  # before numba is imported
import_numba()

from ensync.kernels.cache import (  # noqa: E402
    check_cache_files,
    postpone_scipy,
    try_directories_once,
)

check_cache_files()
try_directories_once()
postpone_scipy()
