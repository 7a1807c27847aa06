"""PyTorch in a benchmark: the step that a careful user writes, with the faster of its fused and
foreach optimisers, compiled (torch.compile) where that is faster still.
"""

import time
from collections.abc import Callable

import harness
import numpy as np
import torch
from ensync_side import SAMPLES, images_and_labels
from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "logistic": nn.Sigmoid}


def make_network(
    sizes: tuple[int, ...], activation: str = "relu", last: bool = False
) -> nn.Sequential:
    """Return the same network as Ensync's; `last`: with the activation behind the last layer,
    too.
    """
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for height, width in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(height, width), ACTIVATIONS[activation]()]
    return nn.Sequential(*(layers if last else layers[:-1]))


def make_optimizer(network: nn.Module, name: str, how: str) -> torch.optim.Optimizer:
    """Return Adam or plain SGD, `how` fused or foreach."""
    kind = torch.optim.Adam if name == "adam" else torch.optim.SGD
    return kind(network.parameters(), lr=1e-3, **{how: True})


def runner(
    network: nn.Module,
    sizes: tuple[int, ...],
    batch: int,
    optimizer: torch.optim.Optimizer,
    online: bool = False,
    rank: int = 0,
    size: int = 1,
) -> Callable[[int], None]:
    """Return what trains so many steps: gather, normalise, forward, loss, backward, update;
    `batch` is over all processes.
    """
    pixels, classes = images_and_labels(sizes)
    images, labels = torch.from_numpy(pixels), torch.from_numpy(classes)
    targets = nn.functional.one_hot(labels, sizes[-1]).float()
    loss = nn.MSELoss() if online else nn.CrossEntropyLoss()
    wanted = targets if online else labels
    order, at = torch.from_numpy(np.random.default_rng(2).permutation(SAMPLES)), 0
    share = slice(rank * batch // size, (rank + 1) * batch // size)

    def run(steps: int) -> None:
        nonlocal at
        for _ in range(steps):
            rows = order[at : at + batch][share]
            at = at + batch if at + 2 * batch <= SAMPLES else 0
            inputs = images[rows].to(torch.float32).sub_(127.5).mul_(1 / 74)
            optimizer.zero_grad(set_to_none=True)
            loss(network(inputs), wanted[rows]).backward()
            optimizer.step()

    return run


def best_runner(
    sizes: tuple[int, ...], batch: int, name: str, online: bool = False
) -> tuple[str, Callable[[int], None]]:
    """Return the name of the fastest form (the optimiser's, or compiled) and its runner, with the
    threads set now.
    """
    trials = {}
    for how in ("fused", "foreach", *(["compiled"] if harness.cpp_compiler() else [])):
        network = make_network(sizes, *(("tanh", True) if online else ()))
        optimizer = make_optimizer(network, name, "fused" if how == "compiled" else how)
        compute = torch.compile(network) if how == "compiled" else network
        run = runner(compute, sizes, batch, optimizer, online)
        run(20)
        begin = time.perf_counter()
        run(100)
        trials[how] = time.perf_counter() - begin, run
    how = min(trials, key=lambda key: trials[key][0])
    return how, trials[how][1]


def with_threads(run: Callable[[int], None], count: int) -> Callable[[int], None]:
    """Return the same with so many threads."""

    def threaded(steps: int) -> None:
        torch.set_num_threads(count)
        run(steps)

    return threaded
