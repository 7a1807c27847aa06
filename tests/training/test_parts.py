"""Networks that see parts of images, in changed colours: against plain numpy on the same random
numbers.
"""

import naive
import numpy as np
import pytest
from training.test_training_features import make_job, make_trainee

from ensync.core.config.inputs import input_shape
from ensync.core.errors import EnsyncError
from ensync.training.batches import BatchLoader, augmenter_of
from ensync.training.colours import colour_components
from ensync.training.evaluation import evaluate_block
from ensync.training.reducers import Part
from ensync.training.runners import MiniBatchRunner
from ensync.training.views import views_of

SHAPE, SIDE = (9, 8, 3), 5
MEAN, INVERSE = np.array([100.0, 120.0, 90.0]), np.array([1 / 50, 1 / 60, 1 / 70])
ROWS = np.array([3, 0, 19, 7, 11, 2])
PAPER = {"random_crop": SIDE, "flip": True, "colour_noise": 0.3}


class Blocks:
    """A reader that gives the rows asked for alone, as of a dataset that is streamed."""

    def __init__(self, images):
        self.images = images

    def batch(self, rows):
        return self.images[rows], np.arange(len(rows))


def trainee_of(rows=40, **sections):
    """A trainee whose images are larger than its network's inputs; red, green and blue go
    together, as in pictures.
    """
    trainee = make_trainee(rows, SHAPE, **sections)
    grey = trainee.loader.images.reshape(rows, *SHAPE) // 2
    images = (grey + grey.mean(3, keepdims=True)).astype(np.uint8).reshape(rows, -1)
    trainee.loader = BatchLoader(images, trainee.loader.labels, MEAN, INVERSE, SHAPE)
    trainee.loader.find_colours()
    return trainee


def pictures(trainee):
    return trainee.loader.images.reshape(-1, *SHAPE).astype(float)


def normalised(images):
    return (images - MEAN) * INVERSE


def augmenter(trainee, epoch=0):
    job = trainee.job
    return augmenter_of(job.augmentation, job.training.seed, 0, SHAPE, epoch)


def loaded(trainee, changes=None, rows=ROWS):
    found, _ = trainee.loader.load(rows, trainee.network.inputs, changes)
    return found.reshape(-1, SIDE, SIDE, 3).copy()


def components(images):
    """The eigenvectors of the covariance of the pixels, times their eigenvalues, largest first."""
    values, vectors = np.linalg.eigh(np.cov(images.reshape(-1, 3).T / 255, bias=True))
    values, vectors = values[::-1], vectors[:, ::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), range(3)])
    return 255 * vectors * values


def changed(trainee, row, key, crop):
    """An image as the paper has it, within a frame of reflected pixels."""
    framed = np.pad(pictures(trainee)[row], ((crop, crop), (crop, crop), (0, 0)), mode="reflect")
    top, left = (
        int(naive.chance(key, row, number) * (size + 2 * crop - SIDE + 1))
        for number, size in ((1, SHAPE[0]), (2, SHAPE[1]))
    )
    part = framed[top : top + SIDE, left : left + SIDE]
    part = part[:, ::-1] if naive.chance(key, row, 0) < 0.5 else part
    alphas = 0.3 * naive.three_normal(key, row)
    return normalised(part + components(pictures(trainee)) @ alphas)


@pytest.mark.parametrize("crop", [0, 2])
def test_training_images_are_those_of_the_paper(crop):
    frame = {"crop": crop, "crop_edge": "reflect"} if crop else {}
    trainee = trainee_of(augmentation=PAPER | frame)
    epochs = []
    for epoch in (0, 1):
        changes = augmenter(trainee, epoch)
        expected = [changed(trainee, row, int(changes.key), crop) for row in ROWS.tolist()]
        epochs.append(loaded(trainee, changes))
        np.testing.assert_allclose(epochs[-1], expected, rtol=1e-9, atol=1e-9)
    assert not np.allclose(*epochs)


def test_other_images_show_the_middle():
    """Those of a test, and of the epochs behind augmentation.epochs, where they are mirrored."""
    trainee = trainee_of(augmentation=PAPER | {"epochs": 2})
    middle = normalised(pictures(trainee)[ROWS, 2:7, 1:6])
    np.testing.assert_allclose(loaded(trainee), middle, rtol=1e-12)
    changes = augmenter(trainee, 2)
    flips = [naive.chance(int(changes.key), row, 0) < 0.5 for row in ROWS.tolist()]
    expected = [each[:, ::-1] if flip else each for each, flip in zip(middle, flips, strict=True)]
    assert any(flips) and not all(flips)
    np.testing.assert_allclose(loaded(trainee, changes), expected, rtol=1e-12)
    assert augmenter(trainee_of(augmentation={"random_crop": SIDE, "epochs": 2}), 2) is None


def test_whole_images_with_colours_have_their_frame_as_before():
    """The part of an image that is all of it, by the same random numbers."""
    whole, part = (
        make_trainee(20, (6, 6, 3), augmentation={"crop": 2, "random_crop": side})
        for side in (0, 6)
    )
    images = []
    for trainee in (whole, part):
        changes = augmenter_of(trainee.job.augmentation, 1, 0, (6, 6, 3), 0)
        images.append(trainee.loader.load(ROWS, trainee.network.inputs, changes)[0].copy())
    assert np.array_equal(*images)


def test_colours_are_found_alike_in_memory_and_streamed():
    trainee = trainee_of(rows=1500)
    in_memory = trainee.loader
    np.testing.assert_allclose(in_memory.colours, components(pictures(trainee)), rtol=1e-9)
    streamed = BatchLoader(Blocks(in_memory.images), in_memory.labels, MEAN, INVERSE, SHAPE)
    streamed.find_colours()
    assert np.array_equal(streamed.colours, in_memory.colours)
    assert streamed.with_images(in_memory.images, in_memory.labels).colours is streamed.colours
    grey = np.repeat(np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1), 3, 3)
    found = colour_components(iter([grey]))
    assert np.allclose(found[:, 0], np.var(np.arange(12)) * 3 / 255 / np.sqrt(3))
    assert np.allclose(found[:, 1:], 0)


@pytest.mark.parametrize("count,size", [(2, 512), (3, 6)])
def test_any_ranks_and_slices_compute_the_same(count, size):
    settings = PAPER | {"mixup": 0.7, "cutmix": 1.2, "rand_augment": 2}
    whole, parts = (
        trainee_of(augmentation=settings, training={"slice": each}) for each in (512, size)
    )
    rows = np.random.default_rng(1).permutation(40)[:20]
    MiniBatchRunner(whole)._compute(rows, 0, whole.network, Part(1, 0))
    total = np.zeros_like(parts.network.message)
    for index in range(count):
        MiniBatchRunner(parts)._compute(rows, 0, parts.network, Part(count, index))
        total += parts.network.message
    np.testing.assert_allclose(total, whole.network.message, rtol=1e-9, atol=1e-12)


def outputs_of(network, images):
    """The sums of a perceptron with one hidden layer, by the formula."""
    first, second = (layer for layer in network.layers if hasattr(layer, "weights"))
    hidden = np.maximum(images.reshape(len(images), -1) @ first.weights + first.bias, 0)
    return hidden @ second.weights + second.bias


@pytest.mark.parametrize("loss", ["cross_entropy", "mean_squared_error"])
def test_ten_views_are_the_corners_and_the_middle_mirrored(loss):
    trainee = trainee_of(
        rows=150,
        augmentation={"random_crop": SIDE},
        evaluation={"augmentation": "ten_views"},
        training={"loss": loss},
    )
    trainee.network.parameters *= 9  # probabilities far from the mean of their logarithms
    images, scores = normalised(pictures(trainee)), []
    for top, left in ((0, 0), (0, 3), (4, 0), (4, 3), (2, 1)):
        part = images[:, top : top + SIDE, left : left + SIDE]
        scores += [outputs_of(trainee.network, each) for each in (part, part[:, :, ::-1])]
    if loss == "cross_entropy":
        scores = [np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in scores]
    expected, labels = sum(scores) / 10, trainee.loader.labels
    views = views_of("ten_views", (SIDE, SIDE, 3), SHAPE)
    found = evaluate_block(trainee.network, trainee.loader, 1, 0, False, views)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-9, atol=1e-12)
    assert found.correct == (expected.argmax(1) == labels).sum()
    assert found.alone == (scores[8].argmax(1) == labels).sum()
    if loss == "cross_entropy":
        likelihood = np.log(expected[np.arange(150), labels])
        assert sum(found.losses) == pytest.approx(-likelihood.sum(), rel=1e-9)


REFUSED = [
    ("augmentation.random_crop = 9 with images of 9 x 8 x 3", {"random_crop": 9}, "none", SHAPE),
    ("augmentation.colour_noise = 0.3 with .* of 8 x 8 x 1", PAPER, "none", (8, 8, 1)),
    ("augmentation.rand_augment = 2 .* of 8 x 8 x 2", {"rand_augment": 2}, "none", (8, 8, 2)),
    ("'ten_views' with inputs of whole images", {"random_crop": 8}, "ten_views", (8, 8, 3)),
]


@pytest.mark.parametrize("sentence,augmentation,views,shape", REFUSED)
def test_images_that_do_not_fit_are_refused(sentence, augmentation, views, shape):
    job = make_job(augmentation=augmentation, evaluation={"augmentation": views})
    with pytest.raises(EnsyncError, match=sentence):
        input_shape(job, shape)


def test_inputs_are_as_large_as_the_part():
    assert input_shape(make_job(), SHAPE) == SHAPE
    assert input_shape(make_job(augmentation=PAPER), SHAPE) == (SIDE, SIDE, 3)
    narrow = make_job(augmentation={"random_crop": 8}, evaluation={"augmentation": "ten_views"})
    assert input_shape(narrow, SHAPE) == (8, 8, 3), "which has corners one above the other"
