"""The networks that are measured at an image shape, and their steps on our side and on PyTorch's;
without dropout, which neither side needs.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from ensync.core.config.communication import Communication
from ensync.core.config.network import NETWORKS
from ensync.core.config.schema import Job
from ensync.mpi.world import Comm
from ensync.nn.models import zoo
from ensync.nn.optimizers import Optimizer
from ensync.strategies.reducers import choose
from ensync.training.batches import BatchLoader, first_images
from ensync.training.trainer import Trainer

ROOM = 64 << 20  # bytes of images
EPOCHS = 10_000  # more than a benchmark trains
PLAIN = Communication()


@dataclass(frozen=True)
class Case:
    """A network at its image shape and batch; to_reach: times faster than PyTorch at the same
    precision.

    sizes: of a dense network's layers, the pixels first; empty where there are convolutions.
    """

    name: str
    settings: dict
    shape: tuple[int, int, int]
    batch: int = 32
    to_reach: float = 2.0
    torch_options: dict = field(default_factory=dict)
    sizes: tuple[int, ...] = ()

    @property
    def network(self) -> str:
        """The name in the zoo."""
        return self.settings["name"]

    @property
    def is_convolutional(self) -> bool:
        """Whether it takes images as such."""
        return not self.sizes

    def at(self, batch: int) -> "Case":
        """Return the same with another batch."""
        return replace(self, batch=batch)


CASES = [
    Case("parashar-cnn", {"name": "parashar-cnn", "dropout": 0.0}, (28, 28, 1), to_reach=2.5),
    Case("minixception", {"name": "minixception"}, (32, 32, 3), to_reach=2.5),
    Case(
        "alexnet half",
        {"name": "alexnet", "width": 0.5, "dropout": 0.0},
        (224, 224, 3),
        torch_options={"width": 0.5},
    ),
    Case("lenet", {"name": "lenet"}, (28, 28, 1)),
    Case(
        "resnet-20",
        {"name": "resnet", "depth": 20},
        (32, 32, 3),
        torch_options={"depth": 20, "shortcut": "identity"},
    ),
]


def _dense(name: str, *sizes: int) -> Case:
    settings = {"name": name, "hidden": list(sizes[1:-1])}
    return Case(f"{name} {'-'.join(map(str, sizes))}", settings, (28, 28, 1), sizes=sizes)


# Every network of the zoo.
ZOO = [
    _dense("mlp", 784, 512, 256, 10),
    _dense("oregon-mlp", 784, 100, 100, 10),
    _dense("roy-mlp", 784, 100, 10),
    *CASES,
    Case("minixception-plain", {"name": "minixception-plain"}, (32, 32, 3)),
    Case("vgg-16", {"name": "vgg", "depth": 16}, (32, 32, 3), torch_options={"depth": 16}),
    Case("airbench", {"name": "airbench"}, (32, 32, 3)),
]


def images_and_labels(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return random images uint8 (samples, height * width * channels) and labels int64 in 10
    classes, the same everywhere.
    """
    features, random = int(np.prod(case.shape)), np.random.default_rng(1)
    samples = max(1, min(16384, ROOM // features) // case.batch) * case.batch
    return random.integers(0, 256, (samples, features), dtype=np.uint8), random.integers(
        0, 10, samples
    )


def make_job(case: Case, precision: str, batch_norm: str = "synchronised") -> Job:
    """Return a job of this network with Adam."""
    own = {"batch_norm": batch_norm} if NETWORKS[case.network].batch_normalization else {}
    return Job.model_validate(
        {
            "data": {"path": "-"},
            "network": case.settings | own,
            "training": {"batch": case.batch, "precision": precision, "epochs": EPOCHS},
            "optimizer": {"name": "adam"},
            "output": {"directory": "-"},
        }
    )


def make_trainee(
    comm: Comm,
    case: Case,
    precision: str,
    batch_norm: str = "synchronised",
    communication: Communication = PLAIN,
) -> Trainer:
    """Return the network in training with Adam. Collective."""
    job = make_job(case, precision, batch_norm)
    job = job.model_copy(update={"communication": communication})
    images, labels = images_and_labels(case)
    channels = np.ones(case.shape[2], np.float32)
    network = zoo.build(job, case.shape, 10, -(-case.batch // comm.size))
    update = Optimizer(job.optimizer, network.layout, network.dtype)
    reducer = choose(job.training, job.communication, comm, network, update, lambda: network)
    loader = BatchLoader(images, labels, 127.5 * channels, channels / 74)
    network.initialize(1, images=partial(first_images, loader, case.shape))
    return Trainer(job, 0, network, update, reducer, loader, np.arange(len(labels)))


def make_torch_network(case: Case):
    """Return PyTorch's network, of the tests, in float32."""
    import torch

    if case.sizes:
        import torch_side

        dense = torch_side.make_network(case.sizes, NETWORKS[case.network].activation)
        return torch.nn.Sequential(torch.nn.Flatten(), dense)
    sys.path.append(str(Path(__file__).parents[1]))
    import torch_networks

    torch.manual_seed(1)
    return torch_networks.build(
        case.network, case.shape[0], case.shape[2], **case.torch_options
    ).float()


def torch_runner(
    case: Case,
    network,
    channels_last: bool,
    autocast: bool,
    share: slice | None = None,
    compiler: Callable | None = None,
) -> Callable[[int], None]:
    """Return what trains so many steps: gather, normalise, forward, loss, backward, fused Adam.

    share: the rows of each batch that this process takes, None for all. compiler: torch.compile.
    """
    import torch

    pixels, classes = images_and_labels(case)
    h, w, c = case.shape
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = (
        torch.from_numpy(pixels)
        .reshape(-1, h, w, c)
        .permute(0, 3, 1, 2)
        .contiguous(memory_format=layout)
    )
    labels = torch.from_numpy(classes)
    network = network.to(memory_format=layout)
    compute = compiler(network) if compiler else network
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    order, at = torch.from_numpy(np.random.default_rng(2).permutation(len(labels))), 0

    def run(steps: int) -> None:
        nonlocal at
        for _ in range(steps):
            rows = order[at : at + case.batch][share or slice(None)]
            at = at + case.batch if at + 2 * case.batch <= len(labels) else 0
            inputs = (
                images[rows]
                .to(torch.float32)
                .sub_(127.5)
                .mul_(1 / 74)
                .contiguous(memory_format=layout)
            )
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = torch.nn.functional.cross_entropy(compute(inputs), labels[rows])
            loss.backward()
            optimizer.step()

    return run
