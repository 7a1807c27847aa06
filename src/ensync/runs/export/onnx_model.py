"""A run as one ONNX model: pixels in, probabilities out."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ensync import __version__
from ensync.core.errors import EnsyncError
from ensync.nn.interchange.translation import Translation
from ensync.nn.network import Network
from ensync.runs.export.fusions import FORMS, shares
from ensync.runs.export.graph import IR_VERSION, LAST, OPSET, Graph
from ensync.runs.export.trained import Trained
from ensync.training.views import View

if TYPE_CHECKING:
    from onnx import GraphProto

IMAGES, PROBABILITIES, LABEL = "images", "probabilities", "label"
LARGEST = (1 << 31) - (1 << 24)  # bytes of constants; protobuf ends at 2 GiB


def onnx_model(trained: Trained) -> bytes:
    """Return the bytes of a model with a trained run's networks and the fusion inside.

    Its input `images` is uint8 (n, height, width, channels), as the dataset has them. Its outputs
    are `probabilities` float32 (n, classes) and `label` int64 (n,), what `Run.predict_proba` and
    `Run.predict` give. Arithmetic is in float32. Errors: EnsyncError for what ONNX cannot hold.
    """
    from onnx import helper

    graph = Graph()
    given = _normalized(graph, trained)
    scores = [
        _scores(graph, network, _Place(given, trained.shape, trained.views, f"member_{number}."))
        for number, network in enumerate(trained.networks())
    ]
    _answers(graph, trained, scores)
    model = helper.make_model(
        _finished(graph, trained),
        producer_name="ensync",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, _properties(trained))
    written: bytes = model.SerializeToString()
    return written


def _normalized(graph: Graph, trained: Trained) -> str:
    """Append the images as the networks take them, (n, channels, height, width)."""
    from onnx import TensorProto

    pixels = graph.node("Cast", IMAGES, to=TensorProto.FLOAT)
    centred = graph.node("Sub", pixels, graph.constant("mean", trained.mean))
    scaled = graph.node("Mul", centred, graph.constant("inverse_std", trained.inverse_std))
    return graph.node("Transpose", scaled, perm=[0, 3, 1, 2])


class _Place(NamedTuple):
    """Where a network comes into the graph: behind the value `images`, which are of shape (height,
    width, channels), on these views of them, its constants with names that begin with `prefix`.
    """

    images: str
    shape: tuple[int, ...]
    views: Sequence[View]
    prefix: str


def _scores(graph: Graph, network: Network, place: _Place) -> str:
    """Append a network, on each view of the images where there are several."""
    outputs = list(_outputs(graph, network, place))
    if graph.bytes > LARGEST:
        raise EnsyncError(
            f"networks of {graph.bytes / 2**30:.1f} GiB in one ONNX file",
            "less than 2 GiB, which is as long as such a file can be",
            "export one member of the ensemble, or with --format safetensors",
        )
    output = outputs[0] if len(outputs) == 1 else graph.node("Sum", *outputs)
    of_scores = any(view.of_scores for view in place.views)
    return output if of_scores else _scored(graph, network, output)


def _scored(graph: Graph, network: Network, outputs: str) -> str:
    return graph.node("Softmax", outputs, axis=1) if network.loss.is_cross_entropy else outputs


def _outputs(graph: Graph, network: Network, place: _Place) -> Iterator[str]:
    operations = Translation(channels_first=False).network(network)
    if not place.views:
        middle = seen(graph, View(network.shape, 1, (0, 0), False), place.images, place.shape)
        yield graph.operations(operations, middle, place.prefix)
    for view in place.views:
        shown = seen(graph, view, place.images, place.shape)
        found = graph.operations(operations, shown, place.prefix)
        if view.of_scores:
            found = _scored(graph, network, found)
        yield graph.node("Mul", found, graph.number(view.share))


def seen(graph: Graph, view: View, value: str, image: Sequence[int]) -> str:
    """Append what a view shows of images (n, channels, height, width) of shape `image` (height,
    width, channels).
    """
    start = [(image[axis] - view.shape[axis]) // 2 + view.moved[axis] for axis in (0, 1)]
    ends = [start[axis] + view.shape[axis] for axis in (0, 1)]
    beyond = min(start) < 0 or any(ends[axis] > image[axis] for axis in (0, 1))
    if beyond:  # by a pixel
        value = graph.node("Pad", value, graph.whole(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
        start, ends = [at + 1 for at in start], [at + 1 for at in ends]
    if beyond or tuple(view.shape[:2]) != tuple(image[:2]):
        corners = graph.whole(*start), graph.whole(*ends)
        value = graph.node("Slice", value, *corners, graph.whole(2, 3))
    if view.mirrored:
        backwards = (graph.whole(-1), graph.whole(-LAST), graph.whole(3), graph.whole(-1))
        value = graph.node("Slice", value, *backwards)
    return value


def _answers(graph: Graph, trained: Trained, scores: Sequence[str]) -> None:
    """Append the fusion, and the two outputs."""
    classes, fusion = len(trained.class_names), trained.fusion
    votes = FORMS[fusion.name](graph, scores, trained.weights, classes)
    sums_to_one = trained.evaluator.network.loss.is_cross_entropy and fusion.combine is None
    probabilities = votes if sums_to_one else shares(graph, votes, classes)
    graph.output(PROBABILITIES, "Identity", probabilities)
    graph.output(LABEL, "ArgMax", votes, axis=1, keepdims=0)


def _finished(graph: Graph, trained: Trained) -> "GraphProto":
    from onnx import TensorProto, helper

    def info(name: str, kind: int, *shape: int) -> object:
        return helper.make_tensor_value_info(name, kind, ["n", *shape])

    return helper.make_graph(
        graph.nodes,
        trained.name,
        [info(IMAGES, TensorProto.UINT8, *trained.shape)],
        [
            info(PROBABILITIES, TensorProto.FLOAT, len(trained.class_names)),
            info(LABEL, TensorProto.INT64),
        ],
        list(graph.constants.values()),
    )


def _properties(trained: Trained) -> dict[str, str]:
    return {
        "class_names": json.dumps(trained.class_names),
        "fusion": trained.fusion.name,
        "members": str(len(trained.weights)),
        "dataset": trained.identity.name,
    }
