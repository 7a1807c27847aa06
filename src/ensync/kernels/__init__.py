"""Array kernels compiled by numba: outputs are passed in, nothing is allocated, no policy; the only home of numba."""
