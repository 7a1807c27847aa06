"""Tests with several views of an image, against PyTorch's padding and a formula of their own."""

import numpy as np
import pytest
from training.test_training_features import make_trainee

from ensync.training.evaluation import evaluate_block
from ensync.training.views import views_of

SHAPE = (5, 4, 1)
MEAN, SCALE = 128.0, 1 / 64  # of make_trainee


def numpy_pad(images):
    return np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="reflect")


def torch_pad(images):
    torch = pytest.importorskip("torch")
    return torch.nn.functional.pad(torch.from_numpy(images), (1,) * 4, mode="reflect").numpy()


def outputs_of(network, images):
    """The logits of a perceptron with one hidden layer, by the formula."""
    first, second = (layer for layer in network.layers if hasattr(layer, "weights"))
    hidden = np.maximum(images.reshape(len(images), -1) @ first.weights + first.bias, 0)
    return hidden @ second.weights + second.bias


def mean_outputs(trainee, augmentation, pad):
    """Half and half the image and its mirror; six views as their authors mix them."""
    pixels = trainee.loader.images.reshape(-1, *SHAPE[:2]).astype(float)

    def mirrored(images):
        both = [outputs_of(trainee.network, each) for each in (images, images[:, :, ::-1])]
        return sum(both) / 2

    images = (pixels - MEAN) * SCALE
    if augmentation == "none":
        return outputs_of(trainee.network, images)
    if augmentation == "mirror":
        return mirrored(images)
    framed = pad(images)
    moved = mirrored(framed[:, :5, :4]) + mirrored(framed[:, 2:, 2:])
    return mirrored(images) / 2 + moved / 4


@pytest.mark.parametrize("pad", [numpy_pad, torch_pad])
@pytest.mark.parametrize("augmentation", ["none", "mirror", "mirror_shift"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mean_squared_error"])
def test_outputs_are_averaged_over_the_views(augmentation, loss, pad):
    trainee = make_trainee(
        rows=150, evaluation={"augmentation": augmentation}, training={"loss": loss}
    )
    views = views_of(trainee.job.evaluation.augmentation, SHAPE, SHAPE)
    found = evaluate_block(trainee.network, trainee.loader, 1, 0, False, views)
    outputs = mean_outputs(trainee, augmentation, pad)
    if loss == "cross_entropy":
        exponentials = np.exp(outputs)
        outputs = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(found.scores, outputs, rtol=1e-9, atol=1e-12)
    assert found.correct == (outputs.argmax(1) == trainee.loader.labels).sum()
    alone = evaluate_block(trainee.network, trainee.loader, 1, 0, False)
    assert found.alone == alone.correct == alone.alone
    if augmentation != "none":
        assert not np.allclose(found.scores, alone.scores)


COUNTS = {"none": 0, "mirror": 2, "mirror_shift": 6, "ten_views": 10}


@pytest.mark.parametrize("name,count", COUNTS.items())
def test_shares_add_up_to_one_and_the_image_is_first(name, count):
    views = views_of(name, SHAPE, (9, 7, 1))
    assert len(views) == len(set(views)) == count
    assert sum(view.share for view in views) == pytest.approx(1 if count else 0)
    assert not views or (views[0].moved, views[0].mirrored) == ((0, 0), False)


def test_views_do_not_depend_on_the_number_of_ranks():
    trainee = make_trainee(rows=300, evaluation={"augmentation": "mirror_shift"})
    views = views_of(trainee.job.evaluation.augmentation, SHAPE, SHAPE)
    whole = evaluate_block(trainee.network, trainee.loader, 1, 0, True, views)
    parts = [evaluate_block(trainee.network, trainee.loader, 3, r, True, views) for r in range(3)]
    assert np.array_equal(np.concatenate([part.scores for part in parts]), whole.scores)
    assert [loss for part in parts for loss in part.losses] == whole.losses
    assert sum(part.alone for part in parts) == whole.alone
