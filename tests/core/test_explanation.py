"""`ensync settings` of a section, of one setting, and of what is neither."""

import pytest

from ensync.core.config.explanation import explain_settings
from ensync.core.config.layers import KINDS
from ensync.core.config.schema import Optimizer
from ensync.core.config.training import Training
from ensync.core.errors import EnsyncError


def titles(text):
    return [line.partition("  ")[0] for line in text.splitlines() if line.startswith("[")]


def keys(text):
    lines = [line for line in text.splitlines() if line.startswith("  ") and line[2] > " "]
    return [line.split()[0] for line in lines]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("training", "[training]"),
        ("optimizer", "[optimizer]"),
        ("optimizer.groups", "[[optimizer.groups]]"),
        ("study", "[study]"),
        ("study.own", "[study.own.NAME]"),
        ("network.layers.dense", '[[network.layers]] kind = "dense"'),
    ],
)
def test_a_section_alone(name, title):
    assert titles(explain_settings(name)) == [title]


def test_a_section_has_all_its_settings():
    for name, section in (("training", Training), ("optimizer", Optimizer)):
        assert keys(explain_settings(name)) == list(section.model_fields)


def test_all_kinds_of_layers():
    assert titles(explain_settings("network.layers")) == [
        f'[[network.layers]] kind = "{kind}"' for kind in KINDS
    ]


def test_the_sections_together_are_the_whole():
    whole = explain_settings()
    assert all(explain_settings(name) in whole for name in ("data", "study.own", "network.layers"))


def test_one_setting():
    text = explain_settings("training.epochs")
    assert keys(text) == ["epochs"] and "passes over the training rows" in text


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("optimzer", "optimizer"),
        ("optimizer.group", "optimizer.groups"),
        ("network.layers.dens", "network.layers.dense"),
        ("trainig.epochs", "training.epochs"),
    ],
)
def test_what_is_neither_is_refused_with_the_nearest_name(name, meant):
    with pytest.raises(EnsyncError, match=f"no section '{name}' .did you mean '{meant}'"):
        explain_settings(name)
