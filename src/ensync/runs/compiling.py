"""Compiling a network from both ends: while this process tries a first step, a second one goes
through the layers from the last to the first.

Each finds in the cache on disk what the other has compiled, so that a cold start takes little more
than half the time.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import numpy as np

from ensync.core.config.schema import Job
from ensync.nn.layers.base import Step
from ensync.nn.models import zoo
from ensync.nn.network import Network

PATIENCE = 3.0  # seconds until the second process starts: from the cache, kernels are loaded in one


@contextmanager
def compile_in_parallel(
    settings: Mapping[str, object],
    shape: tuple[int, ...],
    classes: int,
    cores: int,
    patience: float = PATIENCE,
) -> Iterator[None]:
    """Compile from the other end meanwhile, where the block takes longer than `patience` seconds
    and there is a second core.

    settings: the job, as plain values.
    """
    started: list[subprocess.Popen] = []
    given = json.dumps({"job": settings, "shape": shape, "classes": classes})

    def start() -> None:
        with suppress(OSError):  # without it, it merely takes longer
            helper = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            started.append(helper)
            assert helper.stdin is not None
            helper.stdin.write(given.encode() + b"\n")
            helper.stdin.flush()

    timer = threading.Timer(patience, start)
    if cores > 1:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()
        for helper in started:
            helper.kill()  # numba's files appear whole or not at all
            helper.communicate()


def compile_backwards(network: Network) -> None:
    """Run every layer of a network for 2 rows by itself, the last one first."""
    for layer, shape in reversed(
        list(zip(network.layers, [network.shape, *network.shapes], strict=False))
    ):
        inputs = np.zeros((2, *shape), network.dtype)
        outputs = layer.forward(inputs, Step(training=True))
        layer.backward(np.zeros_like(outputs), Step(training=True))
        layer.forward(inputs, Step())


def _leave_with_parent() -> None:
    """End this process when the one that started it closes the pipe or is gone."""
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Compile what the line on standard input describes."""
    given = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    compile_backwards(
        zoo.build(Job.model_validate(given["job"]), tuple(given["shape"]), given["classes"], 2)
    )


if __name__ == "__main__":
    main()
