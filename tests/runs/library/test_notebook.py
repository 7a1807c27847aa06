"""What a new user writes in a notebook: arrays, a dataset, training, answers, and the network in
another program. Nothing but `import ensync`, numpy and that program.
"""

import numpy as np
import onnxruntime

import ensync


def test_from_arrays_to_another_program(tmp_path):
    # Pictures of 12 x 12 pixels: a bright bar, upright, lying or slanting, on noise.
    random = np.random.default_rng(0)
    labels = np.arange(600) % 3
    images = random.integers(0, 120, (600, 12, 12), np.uint8)
    for image, label, place in zip(images, labels, random.integers(2, 10, 600)):
        bar = [np.s_[:, place], np.s_[place, :], (np.arange(12), np.arange(12))][label]
        image[bar] += 120

    # 1. Arrays become a dataset: a file, with a part of them to validate and to test.
    names = ["upright", "lying", "slanting"]
    dataset = ensync.Dataset.write(tmp_path / "bars.h5", images, labels, class_names=names)
    assert dataset.sizes == {"train": 432, "validation": 48, "test": 120}

    # 2. Two networks learn from it, and answer together.
    job = ensync.job(
        data=dataset,
        network={"hidden": [32]},
        training={"strategy": "ensemble", "epochs": 10, "batch": 16},
        ensemble={"members": 2, "data": "full"},
        output=tmp_path / "run",
    )
    run = ensync.train(job, quiet=True)
    assert run.score(dataset.images("test"), dataset.labels("test")) > 0.9

    # 3. How sure are they of a picture that they never saw?
    new = dataset.images("test")[:20]
    probabilities = run.predict_proba(new)
    assert probabilities.shape == (20, 3)

    # 4. Into a program that knows nothing of Ensync.
    session = onnxruntime.InferenceSession(str(run.export(tmp_path / "bars.onnx")))
    found, answers = session.run(["probabilities", "label"], {"images": new})
    assert np.allclose(found, probabilities, atol=1e-5)
    assert np.array_equal(answers, run.predict(new))
