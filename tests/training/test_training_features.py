"""What training does besides the plain step, each against an oracle: PyTorch where installed,
else the formula.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from ensync.core.config.job import job_from_dict
from ensync.core.errors import EnsyncError
from ensync.core.sharding import Purpose, key64
from ensync.kernels.elementwise import rand_augment
from ensync.nn.layers.base import Parameter
from ensync.nn.models import zoo
from ensync.nn.optimizers import Optimizer, clip
from ensync.nn.schedules import growths, learning_rate_factor
from ensync.training.batches import BatchLoader, augmenter_of
from ensync.training.callbacks import TESTED
from ensync.training.evaluation import evaluate_block
from ensync.training.learning_rate import largest_batch
from ensync.training.reducers import SerialReducer
from ensync.training.trainer import Trainer


def make_job(**sections):
    tables = {"data": {"path": "none"}, "output": {"directory": "none"}, "network": {"hidden": [9]}}
    for name, values in sections.items():
        tables[name] = tables.get(name, {}) | values
    return job_from_dict(tables)


def make_trainee(rows=50, shape=(5, 4, 1), classes=4, **sections):
    sections["training"] = {"precision": "float64", "batch": 10} | sections.get("training", {})
    job = make_job(**sections)
    network = zoo.build(job, shape, classes, min(largest_batch(job), job.training.slice, rows))
    network.initialize(1)
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (rows, int(np.prod(shape))), dtype=np.uint8)
    loader = BatchLoader(
        images, random.integers(0, classes, rows), np.full(1, 128.0), np.full(1, 1 / 64)
    )
    optimizer = Optimizer(job.optimizer, network.layout, network.dtype)
    return Trainer(job, 0, network, optimizer, SerialReducer(network), loader, np.arange(rows))


def test_batches_beyond_what_float32_counts_are_refused():
    """Its sums of correct answers end at 2^24."""
    trainer, many = (
        make_trainee(training={"batch": "full", "precision": "float32"}),
        range((1 << 24) + 1),
    )
    with pytest.raises(EnsyncError, match="16,777,217 samples"):
        replace(trainer, rows=many)
    replace(trainer, rows=many[1:])
    replace(make_trainee(training={"batch": "full"}), rows=many)


def augmenter(trainer):
    job, p = trainer.job, trainer.position
    return augmenter_of(
        job.augmentation, job.training.seed, trainer.member, trainer.network.shape, p.epoch
    )


def epochs(trainer, count):
    for _ in range(count):
        trainer.train()
        trainer.close_epoch()
    return trainer


def test_keras_adam():
    """Keras' update: alpha = rate sqrt(1 - b2^t) / (1 - b1^t), p -= alpha m / (sqrt(v) +
    epsilon).
    """
    random, settings = (
        np.random.default_rng(0),
        make_job(optimizer={"preset": "keras", "epsilon": 1e-2}).optimizer,
    )
    found, expected = random.standard_normal((2, 30))[[0, 0]]
    optimizer, m, v = (
        Optimizer(settings, [("p", Parameter("p", (30,)))], np.dtype(float)),
        np.zeros(30),
        np.zeros(30),
    )
    for t in range(1, 5):
        gradient = random.standard_normal(30)
        optimizer.step(found, gradient)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        expected -= 1e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("longest", [0.5, 100.0])
def test_clipping_is_pytorchs(longest):
    torch = pytest.importorskip("torch")
    gradient = np.random.default_rng(0).standard_normal(40)
    theirs = torch.nn.Parameter(torch.zeros(40, dtype=torch.float64))
    theirs.grad = torch.from_numpy(gradient.copy())
    torch.nn.utils.clip_grad_norm_([theirs], longest)
    clip(gradient, longest)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-12)


def test_clipped_steps_are_short():
    plain, clipped = (
        make_trainee(optimizer={"name": "sgd", "learning_rate": 1, "clip_norm": longest})
        for longest in (0, 1e-3)
    )
    before = clipped.network.parameters.copy()
    plain.train(1)
    clipped.train(1)
    step, short = before - plain.network.parameters, before - clipped.network.parameters
    assert np.linalg.norm(short) == pytest.approx(1e-3, rel=1e-2)
    np.testing.assert_allclose(
        short / np.linalg.norm(short), step / np.linalg.norm(step), rtol=1e-6, atol=1e-12
    )


def test_average_of_weights_is_pytorchs():
    torch = pytest.importorskip("torch")
    trainer = make_trainee(training={"weight_average": 0.9})
    values = torch.nn.Parameter(torch.from_numpy(trainer.network.parameters.copy()))
    module = torch.nn.Module()
    module.values = values
    theirs = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    for _ in range(5):
        trainer.train(1)
        values.data.copy_(torch.from_numpy(trainer.network.parameters))
        theirs.update_parameters(module)
    average, last = trainer.average.vectors["parameters"], trainer.network.parameters.copy()
    np.testing.assert_allclose(average, theirs.module.values.detach().numpy(), rtol=1e-12)
    with pytest.raises(KeyboardInterrupt), trainer.using(TESTED) as network:
        assert np.array_equal(network.parameters, average)
        raise KeyboardInterrupt
    assert np.array_equal(trainer.network.parameters, last) and not np.array_equal(last, average)


LOSSES = [
    1.0,
    0.9,
    0.91,
    0.95,
    0.92,
    0.89,
    0.895,
    0.88995,
    0.9,
    0.9,
    0.5,
    0.6,
    0.6,
    0.6,
    0.6,
    0.6,
    0.6,
]


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_plateau_is_pytorchs(patience):
    """Keras reduces at `patience` epochs, PyTorch after more than `patience`; else they are one
    algorithm.
    """
    torch = pytest.importorskip("torch")
    trainer = make_trainee(
        plateau={"patience": patience, "factor": 0.3, "minimum": 1e-4},
        optimizer={"learning_rate": 0.01},
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        factor=0.3,
        patience=patience - 1,
        threshold_mode="abs",
        threshold=1e-4,
        min_lr=1e-4,
    )
    for loss in LOSSES:
        trainer.after_validation(loss)
        theirs.step(loss)
        assert trainer.learning_rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
    assert trainer.learning_rate < 0.01
    again = type(trainer.position).from_dict(trainer.position.as_dict())
    assert again == trainer.position


def test_growth_of_batch_and_rate():
    job = make_job(
        training={"batch": 32},
        growth={"every_epochs": 3, "batch": 2, "largest_batch": 200, "learning_rate": 1.5},
    )
    assert [growths(job.growth, 32, epoch) for epoch in (0, 2, 3, 5, 6, 8, 9, 100)] == [
        0,
        0,
        1,
        1,
        2,
        2,
        2,
        2,
    ]
    trainer = make_trainee(
        training={"batch": 10},
        growth={"every_epochs": 1, "learning_rate": 1.5, "largest_batch": 40},
        optimizer={"learning_rate": 0.01},
    )
    seen = []
    for _ in range(4):
        seen.append((trainer.batch, trainer.steps_per_epoch, trainer.learning_rate))
        epochs(trainer, 1)
    assert seen == [(10, 5, 0.01), (20, 3, 0.015), (40, 2, 0.0225), (40, 2, 0.0225)]
    assert trainer.optimizer.steps == trainer.steps_done == 12
    assert (
        trainer.starts[:7] == [0, 5, 8, 10, 12, 14, 16]
        and len(trainer.starts) == trainer.job.training.epochs + 1
    )


def test_schedules():
    schedule = make_job(schedule={"name": "cosine", "warmup_epochs": 2, "minimum": 0.1}).schedule
    found = [learning_rate_factor(schedule, step, 4, 10) for step in range(40)]
    assert found[:9] == [(k + 1) / 8 for k in range(8)] + [1.0]
    assert (
        found[24] == pytest.approx(0.55)
        and min(found[9:]) == found[-1]
        and found[-1] == pytest.approx(0.1, abs=3e-3)
    )
    steps = make_job(schedule={"name": "step", "step_epochs": 2, "factor": 0.5}).schedule
    assert [learning_rate_factor(steps, step, 10, 10) for step in (0, 19, 20, 39, 40)] == [
        1,
        1,
        0.5,
        0.5,
        0.25,
    ]


@pytest.mark.parametrize("length", ["0.1", "0.2", "0.3", "0.5", "0.7", "1.1", "2.5"])
@pytest.mark.parametrize("steps", [1, 7, 10, 20, 49])
def test_parts_of_epochs_are_exact(length, steps):
    """A reduction falls on the first step that is so many epochs after the last, and a warm-up
    ends there.
    """
    settings = make_job(
        schedule={"name": "step", "step_epochs": float(length), "factor": 0.5}
    ).schedule
    found = [learning_rate_factor(settings, step, steps, 6) for step in range(6 * steps)]
    assert found == [
        0.5 ** (step / steps // Fraction(length)) for step in map(Fraction, range(6 * steps))
    ]
    warm = make_job(schedule={"warmup_epochs": float(length)}).schedule
    whole = Fraction(length) * steps
    assert [learning_rate_factor(warm, step, steps, 6) for step in range(6 * steps)] == [
        float(min(1, (step + 1) / whole)) for step in range(6 * steps)
    ]


@pytest.mark.parametrize("size", [7, 10, 24])
def test_slices_add_up_to_the_batch(size):
    """Gradients of slices sum to that of the batch, whatever the slice; dropout masks belong to
    the batch's rows.
    """
    sections = {"network": {"hidden": [9], "dropout": 0.3}}
    whole, sliced = (
        epochs(make_trainee(training={"batch": 24, "slice": n}, **sections), 2) for n in (512, size)
    )
    np.testing.assert_allclose(
        sliced.network.parameters, whole.network.parameters, rtol=1e-9, atol=1e-12
    )


def test_label_smoothing_is_pytorchs():
    torch = pytest.importorskip("torch")
    trainer = make_trainee(training={"label_smoothing": 0.2, "batch": 50})
    inputs, labels = trainer.loader.load(np.arange(50), trainer.network.inputs)
    scores, loss, _ = trainer.network.evaluate(inputs, labels)
    logits = torch.from_numpy(np.log(scores))
    assert loss / 50 == pytest.approx(
        torch.nn.functional.cross_entropy(
            logits, torch.from_numpy(labels), label_smoothing=0.2
        ).item(),
        rel=1e-9,
    )


AUGMENTED = {"flip": True, "crop": 1, "shift": 0.2, "rotation": 30, "erasing": 0.5}


def test_operations_come_before_all_other_changes():
    """What reaches the network is what it gets of a dataset of the operated images."""
    operated = make_trainee(augmentation={"flip": True, "crop": 1, "rand_augment": 3})
    rows, shape = np.arange(10), operated.network.shape
    images, places = operated.loader.raw(rows)
    operations, out = np.empty((10, 3, 2)), np.empty((10, images.shape[1]), np.uint8)
    key = key64(operated.job.training.seed, Purpose.AUGMENTATION, 0, 0)
    rand_augment.draw_operations(rows, key, 9.0, shape[:2], operations)
    rand_augment.gather_operate(images, places, operations, shape, out)
    assert not np.array_equal(out, images[places])
    plain = make_trainee(augmentation={"flip": True, "crop": 1})
    plain.loader.images = out
    found, expected = (
        each.loader.load(rows, each.network.inputs, augmenter(each))[0].copy()
        for each in (operated, plain)
    )
    assert np.array_equal(found, expected)


def test_alternating_flips_show_each_image_both_ways():
    """In epoch 0 as random flips do; then every second epoch is the mirror of the one before."""
    random, turning = (make_trainee(augmentation={"flip": flip}) for flip in (True, "alternating"))
    rows, images = np.arange(10), []
    for epoch in range(4):
        turning.position.epoch = epoch
        loaded = turning.loader.load(rows, turning.network.inputs, augmenter(turning))[0]
        images.append(loaded.reshape(10, 5, 4).copy())
    first = random.loader.load(rows, random.network.inputs, augmenter(random))[0]
    assert np.array_equal(images[0].reshape(10, -1), first)
    assert np.array_equal(images[1], images[0][:, :, ::-1])
    assert np.array_equal(images[2], images[0]) and np.array_equal(images[3], images[1])
    turning.member = 1
    other = turning.loader.load(rows, turning.network.inputs, augmenter(turning))[0]
    assert not np.array_equal(other.reshape(10, 5, 4), images[3])


def test_augmentation_changes_training_images_only():
    plain, changed = make_trainee(), make_trainee(augmentation=AUGMENTED)
    rows = np.arange(10)
    before = plain.loader.load(rows, plain.network.inputs)[0].copy()
    first = changed.loader.load(rows, changed.network.inputs, augmenter(changed))[0].copy()
    assert not np.allclose(first, before)
    changed.position.epoch = 1
    assert not np.allclose(
        changed.loader.load(rows, changed.network.inputs, augmenter(changed))[0], first
    )
    changed.position.epoch = 0
    assert np.array_equal(
        changed.loader.load(rows[3:5], changed.network.inputs, augmenter(changed))[0], first[3:5]
    )
    assert np.array_equal(changed.loader.load(rows, changed.network.inputs)[0], before)


def test_augmented_slices_add_up_to_the_batch():
    whole, sliced = (
        epochs(make_trainee(training={"batch": 24, "slice": n}, augmentation=AUGMENTED), 2)
        for n in (512, 7)
    )
    np.testing.assert_allclose(
        sliced.network.parameters, whole.network.parameters, rtol=1e-9, atol=1e-12
    )


def test_augmentation_ends_but_for_flips():
    ending, changed, flipped = (
        epochs(make_trainee(augmentation=changes), 2)
        for changes in (AUGMENTED | {"epochs": 2}, AUGMENTED, {"flip": True})
    )
    assert np.array_equal(ending.network.parameters, changed.network.parameters)
    rows = np.arange(10)
    images = [
        each.loader.load(rows, each.network.inputs, augmenter(each))[0].copy()
        for each in (ending, changed, flipped)
    ]
    assert np.array_equal(images[0], images[2]) and not np.array_equal(images[0], images[1])
    assert augmenter(epochs(make_trainee(augmentation={"crop": 1, "epochs": 1}), 1)) is None


@pytest.mark.parametrize("size", [2, 3, 8])
def test_deterministic_evaluation_does_not_depend_on_the_number_of_ranks(size):
    """Blocks of whole buffers, so that rows have the same neighbours; otherwise blocks are as
    even as can be.
    """
    trainer = make_trainee(rows=700, training={"batch": 20})
    whole = evaluate_block(trainer.network, trainer.loader, 1, 0, True)
    parts = [
        evaluate_block(trainer.network, trainer.loader, size, rank, True) for rank in range(size)
    ]
    assert [part[0] for part in parts] == [
        sum(len(before[1]) for before in parts[:rank]) for rank in range(size)
    ]
    assert np.array_equal(np.concatenate([part.scores for part in parts]), whole.scores)
    assert [loss for part in parts for loss in part.losses] == whole.losses
    assert sum(part.correct for part in parts) == whole.correct
    even = [
        len(evaluate_block(trainer.network, trainer.loader, size, rank, False)[1])
        for rank in range(size)
    ]
    assert sum(even) == 700 and max(even) - min(even) <= 1
