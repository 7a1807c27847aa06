"""Groups of parameters with settings of their own, beside PyTorch's in float64."""

import tomllib

import numpy as np
import pytest

from ensync.core.config.explanation import explain_settings
from ensync.core.config.job import dump_job, job_from_dict
from ensync.core.config.optimizers import Optimizer as Settings
from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Parameter
from ensync.nn.optimizers import Optimizer
from ensync.nn.optimizers.groups import stretches_of
from ensync.runs.describe import layer_table

SHAPES = {"0.weights": (7, 5), "0.bias": (5,), "1.gamma": (5,), "1.beta": (5,), "2.weights": (5, 3)}
LAYOUT = [(name, Parameter(name, shape)) for name, shape in SHAPES.items()]
SIZE = sum(parameter.size for _, parameter in LAYOUT)
GROUPS = [
    {"parameters": ["*.bias", "1.beta"], "factor": 4.0, "weight_decay": 0.0},
    {"parameters": "2.*", "name": "adamw", "learning_rate": 0.02},
    {"parameters": "*.gamma", "momentum": 0.3, "weight_decay": 0.2},
]


def settings(groups=GROUPS, **given):
    base = {"name": "nesterov", "learning_rate": 0.1, "momentum": 0.8, "weight_decay": 0.05}
    return Settings.model_validate({**base, "groups": groups, **given})


def arrays(torch, vector):
    """Return a PyTorch parameter for each array of the layout."""
    parts = np.split(vector, np.cumsum([p.size for _, p in LAYOUT])[:-1])
    return {
        name: torch.nn.Parameter(torch.from_numpy(part.copy()))
        for (name, _), part in zip(LAYOUT, parts, strict=True)
    }


def steps(optimizer, factors, cut=(SIZE,), count=5, dtype=float):
    """Return parameters after some steps on gradients drawn from seed 1, done in pieces."""
    random = np.random.default_rng(1)
    found = random.normal(size=SIZE).astype(dtype)
    for _ in range(count):
        gradient, start = random.normal(size=SIZE).astype(dtype), 0
        for stop in cut:
            piece, start = slice(start, stop), stop
            optimizer.step_piece(piece, found[piece], gradient[piece], factors)
        optimizer.steps += 1
    return found


def test_steps_are_pytorchs():
    torch = pytest.importorskip("torch")
    factors = (0.5, 0.5, 0.25, 0.5)
    found = steps(Optimizer(settings(), LAYOUT, np.dtype(float)), factors)
    random = np.random.default_rng(1)
    theirs = arrays(torch, random.normal(size=SIZE))
    sgd = torch.optim.SGD(
        [
            {"params": [theirs["0.weights"]], "lr": 0.05},
            {"params": [theirs["0.bias"], theirs["1.beta"]], "lr": 0.2, "weight_decay": 0.0},
            {"params": [theirs["1.gamma"]], "lr": 0.05, "momentum": 0.3, "weight_decay": 0.2},
        ],
        momentum=0.8,
        weight_decay=0.05,
        nesterov=True,
    )
    adamw = torch.optim.AdamW([theirs["2.weights"]], lr=0.005, weight_decay=0.05)
    for _ in range(5):
        parts = arrays(torch, random.normal(size=SIZE))
        for name, part in theirs.items():
            part.grad = parts[name].detach()
        sgd.step()
        adamw.step()
    expected = np.concatenate([part.detach().numpy() for part in theirs.values()])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pieces_of_a_step_are_the_step(dtype):
    whole, parts = (Optimizer(settings(), LAYOUT, np.dtype(dtype)) for _ in range(2))
    factors = (1.0, None, 0.5, 1.0)
    expected = steps(whole, factors, dtype=dtype)
    found = steps(parts, factors, cut=(1, 3, 36, 37, 42, 51, SIZE), dtype=dtype)
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(found, expected, rtol=tolerance)
    assert list(whole.slots) == ["velocity", "first", "second"] == list(parts.slots)
    assert whole.elementwise and whole.steps == 5


def test_one_group_of_all_parameters_has_the_bits_of_none():
    for name in ("sgd", "momentum", "adam", "lars"):
        plain = Settings(name=name, learning_rate=0.1, weight_decay=0.01)
        group = {"parameters": "*", "name": name, "learning_rate": 0.1}
        other = Settings.model_validate(
            {"name": "sgd", "weight_decay": 0.01, "learning_rate": 9.0, "groups": [group]}
        )
        one, two = (Optimizer(each, LAYOUT, np.dtype(np.float32)) for each in (plain, other))
        assert np.array_equal(
            steps(one, (1.0,), dtype=np.float32), steps(two, (1.0, 1.0), dtype=np.float32)
        )


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_decoupled_decay_is_taken_off_the_weights(name):
    """Loshchilov and Hutter 2019: beside the momentum, and times the rate."""
    found = steps(
        Optimizer(settings([], name=name, decoupled=True), LAYOUT, np.dtype(float)), (0.5,)
    )
    random, v = np.random.default_rng(1), np.zeros(SIZE)
    expected, keep = random.normal(size=SIZE), 0.0 if name == "sgd" else 0.8
    for _ in range(5):
        g = random.normal(size=SIZE)
        v = keep * v + g
        expected *= 1 - 0.05 * 0.05
        expected -= 0.05 * (g + keep * v if name == "nesterov" else v)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_what_is_not_trained_stays_and_does_not_count_for_clipping():
    given = settings(GROUPS[:1], name="sgd", weight_decay=0.0, clip_norm=1.0)
    optimizer = Optimizer(given, LAYOUT, np.dtype(float))
    assert not optimizer.elementwise
    before, gradient = np.ones(SIZE), np.zeros(SIZE)
    gradient[35:40], gradient[0] = 1e6, 0.5  # the bias, which is left as it is
    after = before.copy()
    optimizer.step(after, gradient, (1.0, None))
    assert after[0] == 1 - 0.1 * 0.5 and np.array_equal(after[1:], before[1:])


def test_neighbours_of_one_group_are_one_stretch():
    found = stretches_of(settings([{"parameters": "[12].*", "factor": 2.0}]), LAYOUT)
    assert [(s.group, s.start, s.stop) for s in found] == [(0, 0, 40), (1, 40, SIZE)]
    assert [name for name, _ in found[1].layout] == ["1.gamma", "1.beta", "2.weights"]
    assert len(stretches_of(settings([]), LAYOUT)) == 1


@pytest.mark.parametrize(
    "groups,message",
    [
        ([{"parameters": "0.biases", "factor": 2.0}], "did you mean '0.bias'.*0.weights, 0.bias"),
        (
            [{"parameters": "*.bias", "factor": 2.0}, {"parameters": "0.*", "epochs": 0}],
            "'0.bias' is in optimizer.groups 1 and 2",
        ),
    ],
)
def test_patterns_that_do_not_fit_are_refused(groups, message):
    with pytest.raises(EnsyncError, match=message):
        Optimizer(settings(groups), LAYOUT, np.dtype(float))


def job(**optimizer):
    tables = {"data": {"path": "d"}, "output": {"directory": "r"}, "optimizer": optimizer}
    return job_from_dict(tables, "job.toml")


@pytest.mark.parametrize(
    "group,message",
    [
        ({}, "no 'optimizer.groups 1, parameters'"),
        ({"parameters": "*"}, "optimizer.groups 1 has no settings"),
        ({"parameters": "*", "factor": 2, "learning_rate": 0.1}, "one of the two"),
        ({"parameters": "*", "momentum": 0.1}, "momentum = 0.1 with the optimiser 'adam'"),
        ({"parameters": "*", "anneal": True}, "anneal without epochs"),
        ({"parameters": "*", "anneal": True, "epochs": 0}, "anneal without epochs"),
        ({"parameters": "*", "factor": 0}, "optimizer.groups 1, factor = 0"),
        ({"parameters": "*", "rate": 1}, "unknown setting 'optimizer.groups 1, rate'"),
        ({"parameters": []}, "optimizer.groups 1, parameters"),
        (3, "optimizer.groups 1 = 3"),
    ],
)
def test_a_wrong_group_is_refused_in_one_sentence(group, message):
    with pytest.raises(EnsyncError, match=message) as refused:
        job(groups=[group])
    assert "\n" not in str(refused.value)


def test_groups_are_explained_written_and_described():
    groups = [
        {"parameters": "*.bias", "factor": 2.0, "epochs": 1},
        {"parameters": "0.weights", "epochs": 0},
    ]
    given = job(name="sgd", learning_rate=0.5, groups=groups)
    assert job_from_dict(tomllib.loads(dump_job(given))) == given
    assert "[[optimizer.groups]]" in explain_settings()
    assert layer_table(given, (2, 2, 1), 3)[-3:] == [
        "in no group (sgd 0.5): 1.weights",
        "optimizer.groups 1 (sgd 1 for 1 epoch): 0.bias, 1.bias",
        "optimizer.groups 2 (not trained): 0.weights",
    ]
