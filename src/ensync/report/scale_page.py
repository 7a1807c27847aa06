"""A prediction as one HTML page that needs nothing else."""

from ensync.report import scale_figures, text
from ensync.report.files import finite
from ensync.report.page import (
    best_of,
    facts_of,
    made_where,
    render,
    reversed_of,
    section,
    toml_of,
)
from ensync.report.plots import Drawing, draw
from ensync.report.results import from_json
from ensync.report.scale_results import ScaleResult
from ensync.report.scale_tables import (
    HEADS,
    data_of,
    labels_of,
    link_lines,
    rows_of,
    scale_cells,
    verdict,
)

EPOCH = HEADS.index("epoch, s")
BATCHES = "Figures: the batch that is best for so many ranks."
METHOD = (
    "Steps are the job's own, each begun by all ranks together, and timed by their samples and "
    "threads; between measured numbers of samples a straight line is taken.",
    "A sum over ranks takes what its algorithm takes in Hockney's model: a time for each message, "
    "and for each byte on the link and in the addition (Thakur, Rabenseifner and Gropp 2005), "
    "times what was measured for vectors of that length over what the model says of them.",
    "The slowest of many ranks is that of as many draws from the measured steps.",
    "Efficiency is the samples per second of each rank, over those of one rank alone.",
    "By the noise scale B, batches of b samples take 1 + B / b times the fewest steps to the same "
    "loss (McCandlish et al. 2018, arXiv 1812.06162).",
)


def scale_page(result: ScaleResult) -> str:
    """Return the page of a prediction."""
    result = from_json(ScaleResult, finite(result))  # as it will be read from its file
    first = rows_of(result, labels_of(result)[0])
    return render(
        "page.html",
        title=f"Ensync: {data_of(result)} on more ranks",
        heading=f"How many ranks? {data_of(result)}",
        under=f"predicted; measured {made_where(result)}",
        verdict=verdict(result),
        cards=[],
        heads=list(HEADS),
        rows=best_of(
            scale_cells(first), {EPOCH: [reversed_of(row.epoch_seconds) for row in first]}
        ),
        notes=[f"The table: {first[0].label}. Other strategies are in scale.csv."],
        sections=[
            section("Predicted", _predicted(result)),
            section("How many together", _together(result)),
            section("Measured", _measured(result)),
        ],
        method=[*METHOD, *(f"{line[:1].upper()}{line[1:]}." for line in link_lines(result))],
        facts=facts_of(result),
        job=toml_of(result.job),
        version=f" {result.versions['ensync']}" if "ensync" in result.versions else "",
        beside="scale.json and scale.csv",
    )


def _predicted(result: ScaleResult) -> list[Drawing]:
    """Return the plots of what is predicted; of one number of ranks there is nothing to plot."""
    first = rows_of(result, labels_of(result)[0])
    if len({row.ranks for row in result.rows}) < 2:
        return []
    return [
        draw(scale_figures.epochs(result.rows), "epochs", "seconds of an epoch against ranks"),
        draw(scale_figures.parts(first), "parts", "what a step is made of, by ranks"),
    ]


def _together(result: ScaleResult) -> list[Drawing]:
    if len(result.together) < 2:
        return []
    label = "time to the same loss against ranks that train one network"
    return [draw(scale_figures.same_loss(result.together), "together", label, BATCHES)]


def _measured(result: ScaleResult) -> list[Drawing]:
    label = "milliseconds of a step against samples"
    spent = f"Measured in {text.seconds(result.seconds)} s."
    return [draw(scale_figures.measured_steps(result.calibration), "steps", label, spent)]
