"""RMSprop and Adagrad beside PyTorch's in float64, LAMB beside its formula, array by array."""

import naive
import numpy as np
import pytest

from ensync.core.config.optimizers import Optimizer as Settings
from ensync.nn.layers.base import Parameter
from ensync.nn.optimizers import Optimizer

SHAPES = {"weights": (7, 5), "bias": (5,), "filters": (3, 3, 2, 4)}
LAYOUT = [(name, Parameter(name, shape)) for name, shape in SHAPES.items()]
SIZE = sum(parameter.size for _, parameter in LAYOUT)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "name,given", [("rmsprop", {}), ("rmsprop", {"alpha": 0.5, "epsilon": 0.1}), ("adagrad", {})]
)
def test_steps_are_pytorchs(name, given, decay, dtype):
    torch = pytest.importorskip("torch")
    settings = Settings(name=name, learning_rate=0.02, weight_decay=decay, **given)
    random = np.random.default_rng(1)
    optimizer, found = Optimizer(settings, LAYOUT, np.dtype(dtype)), random.normal(size=SIZE)
    leaf = torch.nn.Parameter(torch.from_numpy(found.copy()))
    if name == "rmsprop":
        numbers = {"alpha": given.get("alpha", 0.99), "eps": given.get("epsilon", 1e-8)}
        theirs = torch.optim.RMSprop([leaf], 0.02, weight_decay=decay, **numbers)
    else:
        theirs = torch.optim.Adagrad([leaf], 0.02, weight_decay=decay)
    found = found.astype(dtype)
    assert optimizer.elementwise and list(optimizer.slots) == ["square"]
    for _ in range(5):
        gradient = random.normal(size=SIZE)
        leaf.grad = torch.from_numpy(gradient.copy())
        theirs.step()
        optimizer.step(found, gradient.astype(dtype))
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(found, leaf.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_lamb_is_its_formula(decay, dtype):
    settings = Settings(name="lamb", learning_rate=0.1, weight_decay=decay, beta2=0.9)
    random = np.random.default_rng(1)
    optimizer, found = Optimizer(settings, LAYOUT, np.dtype(dtype)), random.normal(size=SIZE)
    ends = np.cumsum([parameter.size for _, parameter in LAYOUT])[:-1]
    expected, first, second = (
        np.split(each, ends) for each in (found.copy(), np.zeros(SIZE), np.zeros(SIZE))
    )
    found = found.astype(dtype)
    assert not optimizer.elementwise
    for step in range(1, 5):
        gradient = random.normal(size=SIZE)
        optimizer.step(found, gradient.astype(dtype), [0.5])
        for (_, p), w, g, m, v in zip(
            LAYOUT, expected, np.split(gradient, ends), first, second, strict=True
        ):
            naive.lamb_moments(g, m, v, 0.9, 0.9)
            u = naive.lamb_step(w, m, v, step, (0.9, 0.9, 1e-6, decay))
            trust = np.linalg.norm(w) / np.linalg.norm(u) if len(p.shape) > 1 else 1.0
            w -= 0.1 * 0.5 * trust * u
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("zero", ["parameters", "gradient"])
def test_lamb_takes_the_common_rate_where_a_norm_is_zero(zero):
    vectors = {"parameters": np.ones(SIZE), "gradient": np.ones(SIZE)}
    vectors[zero][:] = 0
    Optimizer(Settings(name="lamb", learning_rate=0.5), LAYOUT, np.dtype(float)).step(**vectors)
    np.testing.assert_allclose(
        vectors["parameters"], -0.5 if zero == "parameters" else 1.0, rtol=1e-5
    )
