"""A group of parameters that is trained for 0 epochs stays as it is; moving statistics of batch
normalisation are no parameters, and follow the images all the same.
"""

import numpy as np
from samples import prepare

import ensync

LAYERS = [
    {"kind": "flatten"},
    {"kind": "batch_normalization"},
    {"kind": "dense", "units": 8, "activation": "relu"},
    {"kind": "dense"},
]


def test_frozen_layers_keep_their_parameters(tmp_path):
    dataset = prepare("digits", tmp_path / "digits.h5").path

    def weights(groups, name):
        job = ensync.job(
            data=dataset,
            network={"layers": LAYERS},
            training={"epochs": 1, "batch": 256},
            optimizer={"groups": groups},
            output=tmp_path / name,
        )
        arrays = ensync.train(job, quiet=True)._tester.loaded.arrays
        return arrays["members/0000/parameters"], arrays["members/0000/statistics"]

    start, _ = weights([{"parameters": "*", "epochs": 0}], "start")
    found, statistics = weights([{"parameters": ["1.*", "2.*"], "epochs": 0}], "frozen")
    frozen = 64 * 2 + 64 * 8 + 8
    assert np.array_equal(found[:frozen], start[:frozen])
    assert np.array_equal(start[:128], np.repeat([1, 0], 64))  # gamma and beta
    assert (found[frozen:] != start[frozen:]).mean() > 0.9
    assert np.ptp(statistics[:64]) > 0 and np.ptp(statistics[64:]) > 0  # from 0 and 1
