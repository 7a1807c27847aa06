"""How far a test from files has come, as rank 0 sees it."""

from collections.abc import Iterator
from contextlib import contextmanager

from ensync.core.config.job import Job
from ensync.core.sharding import block
from ensync.mpi.world import Comm
from ensync.runs.data import SplitLoaders
from ensync.runs.state import Loaded
from ensync.storage.request import Progress
from ensync.training.views import views_of

WHAT = "testing images"


@contextmanager
def watched(
    comm: Comm, loaded: Loaded, job: Job, loaders: SplitLoaders, progress: Progress
) -> Iterator[None]:
    """Tell of the images that this rank evaluates inside the block: of each member, of each view
    of an image, and once more where exits are counted.
    """
    shape = loaders.identity.shape
    views = len(views_of(job.evaluation.augmentation, shape, shape)) or 1
    counted = loaders.file is not None and job.network.has("exits")
    passes = ((loaders.test, views + counted), (loaders.validation, 1))
    total = done = 0
    for loader, count in passes:
        first, last = block(len(loader), comm.size, comm.rank)
        total += (last - first) * count * loaded.state.members

    def watcher(rows: int) -> None:
        nonlocal done
        done = min(total, done + rows)
        progress(WHAT, done, total)

    for loader, _count in passes:
        loader.watcher = watcher
    try:
        yield
    finally:
        for loader, _count in passes:
            loader.watcher = None
