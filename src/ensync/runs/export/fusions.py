"""Every fusion of core.fusion as nodes of an ONNX graph."""

from collections.abc import Callable, Sequence

import numpy as np

from ensync.runs.export.graph import Graph

# From the scores (n, classes) of each member, the members' weights and the number of classes to
# votes (n, classes).
Form = Callable[[Graph, Sequence[str], np.ndarray, int], str]


def _weighted(graph: Graph, scores: Sequence[str], weights: np.ndarray, classes: int) -> str:
    """The sum of weights times scores."""
    if len(scores) == 1 and weights[0] == 1:
        return scores[0]
    terms = [
        graph.node("Mul", score, graph.number(float(weight)))
        for score, weight in zip(scores, weights, strict=True)
    ]
    return graph.node("Sum", *terms)


def _hard(graph: Graph, scores: Sequence[str], weights: np.ndarray, classes: int) -> str:
    """The sum of weights at each member's likeliest class."""
    depth = graph.constant("classes", np.array(classes, np.int64))
    values = graph.constant("off_and_on", np.array([0.0, 1.0]))
    votes = [
        graph.node("OneHot", graph.node("ArgMax", score, axis=1, keepdims=0), depth, values)
        for score in scores
    ]
    return _weighted(graph, votes, weights, classes)


def _median(graph: Graph, scores: Sequence[str], weights: np.ndarray, classes: int) -> str:
    """The median over members, of an even number the mean of the middle two."""
    count, first = len(scores), graph.whole(0)
    joined = graph.node("Concat", *(graph.node("Unsqueeze", s, first) for s in scores), axis=0)
    ordered = graph.node("TopK", joined, graph.whole(count), axis=0, largest=0, sorted=1)
    middle = graph.whole((count - 1) // 2, count // 2)
    return graph.node("ReduceMean", graph.node("Gather", ordered, middle), axes=[0], keepdims=0)


FORMS: dict[str, Form] = {
    "soft_voting": _weighted,
    "hard_voting": _hard,
    "weighted_voting": _weighted,
    "median_voting": _median,
    "weight_averaging": _weighted,  # of the one network that it makes
}


def shares(graph: Graph, votes: str, classes: int) -> str:
    """Return votes as probabilities, as `core.fusion.shares` of what is not negative."""
    least = graph.node("Relu", votes)
    total = graph.node("ReduceSum", least, graph.whole(1), keepdims=1)
    parts = graph.node("Div", least, total)
    given = graph.node("Greater", total, graph.number(0.0))
    return graph.node("Where", given, parts, graph.number(1 / classes))
