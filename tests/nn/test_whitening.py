"""Filters that whiten patches, against numpy's eigenvectors and the variance behind them."""

import numpy as np
import pytest

from ensync.core.config.job import job_from_dict
from ensync.core.errors import EnsyncError
from ensync.nn import whitening as w
from ensync.nn.models import zoo
from ensync.training.batches import BatchLoader, first_images

MEAN, INVERSE = np.array([120, 100, 90], np.float32), np.array([0.02, 0.015, 0.03], np.float32)
LAYER = {"kind": "convolution", "filters": 24, "size": 2, "padding": "valid"}
WHITENING = {**LAYER, "initializer": "whitening", "activation": "gelu"}


def pictures(count=230, side=9):
    """Blurred noise: neighbouring pixels are alike."""
    noise = np.random.default_rng(3).integers(0, 256, (count, side + 1, side + 1, 3)).astype(float)
    return ((noise[:, 1:, 1:] + noise[:, :-1, 1:] + noise[:, 1:, :-1]) / 3).astype(np.uint8)


def normalised(images, window):
    """The patches of normalised images, one a row."""
    values = (images - MEAN.astype(float)) * INVERSE.astype(float)
    height, width = window
    found = [
        values[:, y : y + height, x : x + width].reshape(len(images), -1)
        for y in range(images.shape[1] - height + 1)
        for x in range(images.shape[2] - width + 1)
    ]
    return np.concatenate(found)


@pytest.mark.parametrize("window", [(2, 2), (3, 3), (1, 2)])
def test_filters_are_those_of_numpys_eigenvectors(window):
    images, size = pictures(), 3 * window[0] * window[1]
    shape = (*window, 3, 2 * size)
    found = w.whitening(w.Images(iter([images[:7], images[7:]]), MEAN, INVERSE), shape)
    patches = normalised(images, window)
    covariance = patches.T @ patches / len(patches)
    values, vectors = np.linalg.eigh(covariance)
    expected = (vectors / np.sqrt(values + w.EPSILON))[:, ::-1]
    filters = found.reshape(size, -1)
    assert np.array_equal(filters[:, size:], -filters[:, :size])
    signs = np.sign((expected * filters[:, :size]).sum(axis=0))
    np.testing.assert_allclose(filters[:, :size], expected * signs, atol=1e-8)
    largest = np.argmax(np.abs(filters[:, :size]), axis=0)
    assert (filters[largest, range(size)] > 0).all()
    outputs = patches @ filters[:, :size]
    np.testing.assert_allclose(
        outputs.T @ outputs / len(patches),
        np.diag(values / (values + w.EPSILON))[::-1, ::-1],
        atol=1e-8,
    )


def test_eigenvectors_of_what_is_degenerate():
    for matrix in (np.zeros((4, 4)), np.eye(5), np.ones((6, 6)), np.diag([0.0, 3, 1])):
        values, vectors = w.eigenvectors(matrix)
        np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, matrix, atol=1e-14)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(matrix)), atol=1e-14)
        assert (np.diff(values) <= 0).all()


def build(*layers, shape=(9, 9, 3)):
    job = job_from_dict(
        {
            "data": {"path": "none"},
            "output": {"directory": "none"},
            "network": {"layers": [*layers, {"kind": "dense"}]},
        }
    )
    return zoo.build(job, shape, 4, 2)


class Streamed:
    """A reader that finds rows in another order."""

    def __init__(self, images):
        self.images = images

    def batch(self, rows):
        return self.images[rows[::-1]], np.arange(len(rows))[::-1]


def test_a_network_starts_with_the_first_images_of_its_dataset():
    images = np.concatenate([pictures()] * 22)  # more than are taken
    flat, labels = images.reshape(len(images), -1), np.zeros(len(images), np.int64)
    expected = w.whitening(w.Images(iter([images[: w.IMAGES]]), MEAN, INVERSE), (2, 2, 3, 24))
    found = []
    for source in (flat, Streamed(flat)):
        network = build(WHITENING)
        loader = BatchLoader(source, labels, MEAN, INVERSE)
        network.initialize(1, images=lambda loader=loader: first_images(loader, (9, 9, 3)))
        found.append(network.parameters.copy())
        weights = network.layers[0].weights
        assert np.array_equal(weights, expected.astype(np.float32))
    assert np.array_equal(*found)
    plain = build(LAYER)
    plain.initialize(1)
    assert np.array_equal(found[0][24 * 12 :], plain.parameters[24 * 12 :])  # all else is as ever
    network = build({**WHITENING, "filters": 6})
    network.initialize(1, images=lambda: first_images(loader, (9, 9, 3)))
    kept = network.layers[0].weights
    assert np.array_equal(kept[..., :3], weights[..., :3]) and np.array_equal(
        kept[..., 3:], -weights[..., :3]
    )


@pytest.mark.parametrize(
    "layers,words",
    [
        ([LAYER, WHITENING], "whitening' of layer 1; expected the first layer"),
        ([{**WHITENING, "filters": 26}], "an even number up to 24"),
        ([{**WHITENING, "filters": 5}], "an even number up to 24"),
        ([{**WHITENING, "groups": 3}], "in one group"),
    ],
)
def test_what_can_not_whiten_is_refused(layers, words):
    with pytest.raises(EnsyncError, match=words):
        build(*layers)
