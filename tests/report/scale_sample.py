"""A prediction of round numbers: steps of 10 ms alone and 6 ms on half a batch, and a sum over two
nodes of 6 ms.
"""

from ensync.core.config.communication import Communication
from ensync.core.config.job import job_from_dict, plain_settings
from ensync.core.scaling.advice import together
from ensync.core.scaling.links import Link, MeasuredSum, Network
from ensync.core.scaling.noise import NoiseScale
from ensync.core.scaling.passing import Sizes
from ensync.core.scaling.prediction import Calibration, Model
from ensync.core.scaling.steps import StepTimes
from ensync.core.scaling.wires import NodeSum, Wires
from ensync.report.results import DatasetFacts, Machine
from ensync.report.scale_results import ScaleResult
from ensync.runs.scale import outcome

SIZES = Sizes(
    **dict(rows=6400, batch=64, slice=512, itemsize=4),
    **dict(parameters=996, statistics=0, exact=4, slots=2),
)
LINK = Network(Link(1e-3, 1e-6), "MPICH 5.0.2", (MeasuredSum(2, 4000, 0.006),))


def settings(**sections):
    """Return a whole job as plain settings."""
    tables = {"data": {"path": "d.h5"}, "output": {"directory": "runs/a"}} | sections
    return plain_settings(job_from_dict(tables))


def make_scale(ranks=(1, 2, 4, 8)):
    """Return the prediction for these ranks."""
    steps = tuple(StepTimes(1, rows, 1, s, (s,)) for rows, s in ((32, 0.006), (64, 0.010)))
    calibration = Calibration(
        **dict(sizes=SIZES, threads=1, ranks_on_node=1, cores_of_node=1, steps=steps),
        **dict(freely=1.0, update=0.001, loop=0.0, meeting=0.002),
        wires=Wires(NodeSum(2, 1e-5, 1e-9), LINK, LINK),
    )
    model = Model(calibration)
    found = model.table(outcome.contestants(Communication()), ranks)
    noise = NoiseScale(512.0, 400.0, 800.0, 100, 8, 8)
    return ScaleResult(
        job=settings(),
        calibration=calibration,
        rows=[outcome.row_of(each) for each in found],
        limits=outcome.limits(found, 1),
        shapes=outcome.shapes(model, 1),
        noise=outcome.noise_of(noise),
        together=together(calibration, noise.scale, ranks),
        unknown=outcome.unknown(calibration, ranks),
        machine=Machine("a CPU", 2, 2, 1, 2),
        dataset=DatasetFacts(name="digits", path="d.h5"),
        created="2026-11-29T10:00:00+00:00",
        versions={"ensync": "0.1.0", "MPI": "MPICH 5.0.2"},
    )
