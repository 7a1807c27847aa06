"""Networks of other widths: as near to the wanted parameters as any, or refused by name."""

from fractions import Fraction

import pytest

from ensync.core.config.job import job_from_dict
from ensync.core.config.network import NETWORKS
from ensync.nn.memory import counted
from ensync.nn.models import zoo
from ensync.runs.study.facts import Facts
from ensync.runs.study.widths import parameters, scaled, unscalable, with_parameters

DIGITS = Facts(1437, 180, 180, (8, 8, 1), 10)
COLOURS = Facts(50_000, 0, 10_000, (32, 32, 3), 10)
LAYERS = [
    {"kind": "convolution", "filters": 8, "initializer": "whitening", "size": 2},
    {
        "kind": "residual",
        "layers": [{"kind": "convolution", "filters": 12}, {"kind": "batch_normalization"}],
        "shortcut": [{"kind": "convolution", "filters": 12, "size": 1}],
    },
    {
        "kind": "parallel",
        "branches": [
            [{"kind": "separable", "filters": 6}],
            [{"kind": "convolution", "filters": 4}],
        ],
    },
    {"kind": "gru", "units": 6},
    {"kind": "dense", "units": 20},
    {"kind": "dense"},
]


def job_of(**network):
    return job_from_dict(
        {"data": {"path": "d.h5"}, "output": {"directory": "r"}, "network": network}
    )


def test_parameters_are_those_of_the_network():
    """Of a perceptron by hand, of another as it is built."""
    assert parameters(job_of(hidden=[24, 16]), DIGITS) == 65 * 24 + 25 * 16 + 17 * 10
    job = job_of(layers=LAYERS)
    with counted():
        assert parameters(job, DIGITS) == len(zoo.build(job, (8, 8, 1), 10, 1).parameters)


@pytest.mark.parametrize("share", [Fraction(1, 4), Fraction(1, 3), 2, 3, 4, 8])
@pytest.mark.parametrize(
    "network,facts",
    [
        ({"hidden": [24, 16]}, DIGITS),
        ({"name": "roy-mlp"}, DIGITS),
        ({"name": "airbench"}, COLOURS),
        ({"name": "airbench", "filters": [8, 16]}, COLOURS),
        ({"layers": LAYERS}, DIGITS),
    ],
    ids=lambda x: str(x)[:30],
)
def test_no_other_widths_are_nearer(network, facts, share):
    """Beside every factor of a fine grid, which is another way to look for it."""
    job = job_of(**network)
    found = with_parameters(job, facts, Fraction(share))
    wanted = share * parameters(job, facts)
    missed = abs(parameters(found, facts) - wanted)
    root = float(share) ** 0.5
    for step in range(-30, 31):
        other = scaled(job.network, root * (1 + step / 100))
        other = job.model_copy(update={"network": other})
        assert abs(parameters(other, facts) - wanted) >= missed
    assert missed < 0.05 * wanted


def test_only_widths_differ():
    job = job_of(layers=LAYERS)
    network = scaled(job.network, 2.0)
    assert network.layers[0].filters == 8  # whitening
    assert [each.filters for each in network.layers[1].layers[:1]] == [24]
    assert network.layers[1].shortcut[0].filters == 24
    assert [branch[0].filters for branch in network.layers[2].branches] == [12, 8]
    assert [each.units for each in network.layers[3:]] == [12, 40, None]
    named = job_of(layers=[{"kind": "dense", "units": 7}, {"kind": "dense", "units": 10}])
    assert [layer.units for layer in scaled(named.network, 3.0).layers] == [21, 10]
    assert scaled(job_of(name="alexnet", width=0.5).network, 2.0).width == 1.0


def test_every_network_is_widened_or_refused_by_name():
    for name in NETWORKS:
        why = unscalable(job_of(name=name).network)
        assert not why or f"'{name}'" in why
    assert not unscalable(job_of(name="alexnet").network)


@pytest.mark.parametrize(
    "network,share,words",
    [
        ({"name": "vgg"}, 2, "'vgg' has no setting for the widths"),
        ({"name": "lenet"}, 2, "'lenet' has no setting"),
        ({"hidden": []}, 2, "hidden = []"),
        ({"layers": [{"kind": "dense"}]}, 2, "no width beside that of the outputs"),
        ({"hidden": [1]}, Fraction(1, 8), "no width gives"),
        (
            {
                "layers": [
                    {"kind": "residual", "layers": [{"kind": "convolution", "filters": 1}]},
                    {"kind": "dense"},
                ]
            },
            4,
            "cannot be built",
        ),
    ],
)
def test_what_cannot_be_widened_has_its_reason(network, share, words):
    assert words in with_parameters(job_of(**network), DIGITS, Fraction(share))


def test_as_it_is_where_nothing_is_to_change():
    job = job_of(hidden=[3])
    assert with_parameters(job, DIGITS, Fraction(1)) == job
