"""What the machine allows a step: its arithmetic at the measured peak, and one pass over its
weights in cache.
"""

import harness
import numpy as np
from numba import njit
from peaks import multiply_add_peak, shortest

from ensync.kernels import threads

PASSES = 200


@njit
def read_and_write(values: np.ndarray) -> None:
    """Scale an array in place, up and down again."""
    for i in range(PASSES):
        factor = np.float32(2) if i % 2 else np.float32(0.5)
        for j in range(values.size):
            values[j] *= factor


def pass_seconds(elements: int) -> float:
    """Return the seconds of one thread's pass that reads and writes so many float32."""
    threads.set_threads(1)
    values = np.ones(elements, np.float32)
    return shortest(lambda: read_and_write(values)) / PASSES


def report(cases: list[tuple[tuple[int, ...], int]], counts: list[int]) -> None:
    """Print, per case and number of threads, the time of the arithmetic alone and of one pass
    over the weights.
    """
    rows = []
    for count in counts:
        for sizes, batch in cases:
            peak = multiply_add_peak(count)
            row = {
                "network": "-".join(map(str, sizes)),
                "batch": batch,
                "threads": count,
                "peak_gflops": peak,
                "arithmetic_us": 1e-3 * batch * harness.operations(sizes) / peak,
                "pass_us": 1e6 * pass_seconds(harness.parameters(sizes)),
            }
            harness.emit({"floor": True, **row})
            rows.append(row)
    harness.table(
        "Floors: the arithmetic of a step at the measured peak; one read and write of the "
        "parameters by one thread",
        rows,
    )
