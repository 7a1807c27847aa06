"""How kernels are compiled: the arguments of numba.njit."""

KERNEL = {"cache": True, "error_model": "numpy", "nogil": True}
# Of functions that only compiled code calls: without the ways in from Python and C, a tenth less to
# compile. A call from Python would crash.
INNER = {**KERNEL, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
