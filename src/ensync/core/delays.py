"""How far behind the network is that a rank computes a gradient with, drawn by a seed: delays as
data, so that an asynchronous training gives the same bits again.
"""

from functools import lru_cache

import numpy as np

from ensync.core.sharding import Purpose, generator


@lru_cache(maxsize=256)
def _drawn(seed: int, step: int, most: int, ranks: int) -> np.ndarray:
    return generator(seed, Purpose.DELAYS, step).integers(0, most + 1, ranks)


def delays(seed: int, step: int, most: int, ranks: int) -> np.ndarray:
    """Return by how many steps, int64 (ranks,), the network of each rank is behind in `step`.

    A rank draws from 0 to `most` with equal chances, but takes no older network than in its step
    before: d[t] = min(drawn[t], d[t-1] + 1), and d[0] = 0. Only the last draws count, so that a
    resumed run needs no other state.
    """
    found = np.full(ranks, min(step, most))
    for back in range(min(step, most) + 1):
        found = np.minimum(found, _drawn(seed, step - back, most, ranks) + back)
    return found
