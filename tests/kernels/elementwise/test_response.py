"""Local response normalisation against obvious numpy, finite differences and PyTorch's operator."""

import naive
import numpy as np
import pytest
from forced_vectors import start, succeeds

from ensync.kernels import threads
from ensync.kernels.elementwise import response
from ensync.kernels.simd.host import SIMD, VECTOR_BYTES

# rows, c, n, k, alpha, beta
CASES = [
    pytest.param((70, 96, 5, 2.0, 1e-2, 0.75), marks=pytest.mark.compiled),
    (70, 6, 5, 2.0, 1e-2, 0.75),
    (3, 5, 5, 1.0, 0.3, 0.75),
    (9, 33, 4, 2.0, 0.1, 0.5),
    (2, 3, 9, 1.5, 0.2, 0.75),
    (5, 16, 1, 1.0, 0.5, 1.25),
    (0, 7, 5, 2.0, 0.1, 0.75),
]
SETTINGS = 5, 2.0, 0.1, 0.75


def case(rows, c, dtype):
    random = np.random.default_rng(rows + c)
    return random.standard_normal((rows, c)).astype(dtype) * 3, random.standard_normal(
        (rows, c)
    ).astype(dtype)


def passes(inputs, gradient, n, k, alpha, beta):
    scratch = np.full(
        response.scratch_size(inputs.shape[1], n, inputs.itemsize), np.nan, inputs.dtype
    )
    outputs, slope = np.full_like(inputs, np.nan), np.full_like(inputs, np.nan)
    response.response_forward(inputs, k, n, alpha, beta, scratch, outputs)
    scratch[:] = np.nan
    response.response_backward(gradient, inputs, k, n, alpha, beta, scratch, slope)
    return outputs, slope


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", CASES, ids=str)
def test_forward(sizes, dtype):
    rows, c, n, k, alpha, beta = sizes
    inputs, gradient = case(rows, c, dtype)
    expected = naive.local_response(inputs.astype(float), n, k, alpha, beta)
    np.testing.assert_allclose(
        passes(inputs, gradient, n, k, alpha, beta)[0],
        expected,
        rtol=1e-6 if dtype == np.float32 else 1e-13,
    )


@pytest.mark.parametrize(
    "sizes",
    [(3, 20, 5, 2.0, 0.3, 0.75), (2, 5, 4, 1.0, 0.2, 0.5), (4, 3, 9, 1.5, 0.2, 0.75)],
    ids=str,
)
def test_gradient(sizes):
    rows, c, *settings = sizes
    n, k, alpha, beta = settings
    inputs, gradient = case(rows, c, np.float64)
    expected = naive.finite_differences(
        lambda x: (naive.local_response(x, n, k, alpha, beta) * gradient).sum(), inputs
    )
    np.testing.assert_allclose(passes(inputs, gradient, *settings)[1], expected, atol=1e-7)
    single = passes(inputs.astype(np.float32), gradient.astype(np.float32), *settings)[1]
    np.testing.assert_allclose(single, expected, atol=2e-6)


@pytest.mark.parametrize("n", [4, 5])
@pytest.mark.compiled
def test_both_passes_as_pytorch(n):
    torch = pytest.importorskip("torch")
    inputs, gradient = case(50, 40, np.float32)
    given = torch.tensor(inputs.reshape(2, 5, 5, 40)).permute(0, 3, 1, 2).requires_grad_()
    outputs = torch.nn.functional.local_response_norm(given, n, alpha=1e-2 * n, beta=0.75, k=2.0)
    outputs.backward(torch.tensor(gradient.reshape(2, 5, 5, 40)).permute(0, 3, 1, 2))
    found = passes(inputs, gradient, n, 2.0, 1e-2, 0.75)
    for mine, theirs in zip(found, (outputs.detach(), given.grad), strict=True):
        np.testing.assert_allclose(mine, theirs.permute(0, 2, 3, 1).reshape(50, 40), atol=1e-6)


@pytest.mark.compiled
def test_threads_do_not_change_a_bit():
    arrays, found, before = case(1000, 20, np.float32), [], threads.get_threads()
    for count in (1, before):
        threads.set_threads(count)
        found.append(passes(*arrays, *SETTINGS))
    threads.set_threads(before)
    for one, many in zip(*found, strict=True):
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("form", [name for name in VECTOR_BYTES if name != SIMD])
@pytest.mark.compiled
def test_every_form_of_vectors(form):
    program = (
        "import test_response as t, numpy as np; from naive import finite_differences, "
        "local_response;"
        "x, g = t.case(3, 37, np.float32); y, slope = t.passes(x, g, *t.SETTINGS);"
        "np.testing.assert_allclose(y, local_response(x.astype(float), *t.SETTINGS), rtol=1e-6);"
        "expected = finite_differences(lambda x: (local_response(x, *t.SETTINGS) * g).sum(), "
        "x.astype(float));"
        "np.testing.assert_allclose(slope, expected, atol=2e-6)"
    )
    succeeds(start(program, form, __file__), limit=100)
