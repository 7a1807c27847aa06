"""`ensync export` and `ensync import`."""

import click

from ensync.cli.options import PLACE, FusionMethod, ImageShape, settings
from ensync.cli.ranks import on_ranks, say


@click.command(short_help="Write a trained run for other programs.")
@click.argument("run", type=PLACE, metavar="RUN")
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "safetensors", "pytorch"]),
    default="onnx",
    show_default=True,
    help="onnx: all of a run in one file; safetensors, pytorch: the weights of one network.",
)
@click.option(
    "--to",
    type=PLACE,
    metavar="FILE",
    help="Where; a file there is replaced. Without it, network.onnx, .safetensors or .pt in RUN.",
)
@click.option("--method", type=FusionMethod(), help="Fusion; the job's without it.")
@click.option("--member", type=int, metavar="N", help="Only this network of an ensemble, from 0.")
def export(run: str, form: str, to: str | None, method: str | None, member: int | None) -> None:
    """Write a trained run for other programs. It needs `pip install 'ensync[export]'`, and PyTorch
    for --format pytorch.

    \b
      ensync export runs/quickstart/ensemble
      ensync export runs/quickstart/synchronous --format safetensors --to digits.safetensors
      ensync export runs/quickstart/ensemble --format safetensors --member 0

    The ONNX file takes pixels as they are: `images`, uint8 (n, height, width, channels), of the
    size, colour and range of the training images. It normalises them, computes all members in
    float32, fuses them, and gives what `ensync predict` gives: `probabilities` (n, classes) and
    `label` (n). Its metadata has class_names, as JSON.

    The weights are those of an nn.Sequential in which every operation is a module of its own, with
    names and shapes of PyTorch's modules. A file .py beside them builds it: network(), and the MEAN
    and INVERSE_STD of the pixels.
    """
    from ensync.runs.export import verb

    options = verb.ExportOptions(form, to, method, member)
    on_ranks(lambda comm: verb.export(comm, run, options))


@click.command("import", short_help="Tell whether a job can start from a file of weights.")
@click.argument("file", type=PLACE, metavar="FILE")
@click.argument("job", type=PLACE, metavar="JOB.toml")
@click.option("--new-output", is_flag=True, help="The last dense layer starts anew.")
@settings
@click.option(
    "--shape",
    type=ImageShape(),
    metavar="HxWxC",
    help="The images of the job, in place of its dataset's.",
)
@click.option("--classes", type=click.IntRange(1), metavar="N", help="Classes, with --shape.")
def import_weights(
    file: str,
    job: str,
    new_output: bool,
    overrides: tuple[str, ...],
    shape: tuple[int, int, int] | None,
    classes: int | None,
) -> None:
    """Tell whether a job can start from a file of weights, .safetensors or .pt, and how to train
    from them. Nothing is trained or written.

    \b
      ensync export runs/quickstart/synchronous --format safetensors --to digits.safetensors
      ensync import digits.safetensors jobs/quickstart.toml
      ensync import digits.safetensors jobs/quickstart.toml --new-output

    The names and shapes must be those that `ensync export` writes for the job's network: all of
    them, and no others. With --new-output the last dense layer starts anew, as for other
    classes. To keep layers as they are, put them into a group of the optimiser that is trained for
    0 epochs: see `ensync settings optimizer.groups`.
    """
    from ensync.runs.describe import Images
    from ensync.runs.export.checking import Asked, check

    if (shape is None) != (classes is None):
        raise click.UsageError("--shape and --classes go together.")
    images = Images(shape, classes) if shape and classes else None
    overrides += ("network.new_output=true",) * new_output
    say(lambda: check(Asked(file, job, overrides), images))
