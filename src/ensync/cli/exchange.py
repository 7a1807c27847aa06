"""`ensync export`."""

import click

from ensync.cli.options import PLACE, FusionMethod
from ensync.cli.ranks import on_ranks


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
