"""Arrays that lie one behind the other in a flat vector."""

from collections.abc import Sequence

import numpy as np

from ensync.nn.layers.base import Parameter


def views(flat: np.ndarray, layout: Sequence[tuple[str, Parameter]]) -> dict[str, np.ndarray]:
    """Return views of a flat vector by name, each with the shape that the layout says."""
    found, start = {}, 0
    for name, parameter in layout:
        found[name] = flat[start : start + parameter.size].reshape(parameter.shape)
        start += parameter.size
    return found
