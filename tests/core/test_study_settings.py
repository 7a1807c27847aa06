"""The section [study]: what is accepted, what is refused and with which words."""

import tomllib

import pytest

from ensync.core.config.explanation import explain_settings
from ensync.core.config.job import (
    dump_job,
    flat_settings,
    job_from_dict,
    load_job,
    without_study,
)
from ensync.core.config.study import BUDGETS, CONTESTANTS
from ensync.core.errors import EnsyncError

SMALLEST = {"data": {"path": "d.h5"}, "output": {"directory": "runs/x"}}
OWN = {"wide": {"base": "synchronous", "set": ["network.hidden=[512,256]"]}}


def study(**settings):
    return job_from_dict({**SMALLEST, "study": settings}, "job.toml").study


def test_a_job_has_none_unless_it_says_so():
    job = job_from_dict(SMALLEST)
    assert job.study is None and "study" not in dump_job(job)
    assert "budget" in dump_job(job_from_dict({**SMALLEST, "study": {}}))


def test_a_study_is_dumped_and_read_back():
    job = job_from_dict({**SMALLEST, "study": {"ranks": [1, 4], "own": OWN}})
    assert job_from_dict(tomllib.loads(dump_job(job))) == job
    assert without_study(job) == job_from_dict(SMALLEST)
    assert flat_settings(job) == flat_settings(without_study(job))


def test_options_make_a_study(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('[data]\npath = "d.h5"\n[output]\ndirectory = "r"\n')
    found = load_job(path, ["study.seeds=3", "study.ranks=[1,2]", "study.budget=samples"]).study
    assert (found.seeds, found.ranks) == (3, [1, 2])


def test_own_contestants_come_in_any_case():
    found = study(contestants=["one_rank"], own=OWN | {"a": OWN["wide"] | {"label": "A"}})
    assert found.names == ["one_rank", "wide", "a"]
    assert [found.label(name) for name in found.names] == ["one rank", "wide", "A"]
    assert study(contestants=["wide", "one_rank"], own=OWN).names == ["wide", "one_rank"]


def test_the_values_of_a_setting_are_contestants():
    found = study(over="communication.every = 1, 16,never", own=OWN)
    assert found.names == ["every_1", "every_16", "every_never", "wide"]
    assert [found.label(name) for name in found.names[1:]] == [
        "every = 16",
        "every = never",
        "wide",
    ]
    assert found.axis.setting == "communication.every"
    assert found.axis.values == {"every_1": 1, "every_16": 16, "every_never": "never"}
    both = study(over="network.hidden=[64,32],[8]", contestants=["one_rank"])
    assert both.names[0] == "one_rank" and list(both.axis.values.values()) == [[64, 32], [8]]
    again = job_from_dict(tomllib.loads(dump_job(job_from_dict({**SMALLEST, "study": both}))))
    assert again.study == both


def test_values_have_one_name_however_they_are_written():
    """So that a study is resumed with another spelling."""
    first, other = (study(over=f"optimizer.learning_rate={x}") for x in ("1e-3,0.1", "0.001,1e-1"))
    assert first.names == other.names == ["learning_rate_0.001", "learning_rate_0.1"]


REFUSED = [
    ({"over": "communication.every"}, ["study.over = 'communication.every'", "section.key=value"]),
    ({"over": "every=1,2"}, ["study.over = 'every=1,2'", "section.key=value"]),
    ({"over": "communication.every=1,,2"}, ["section.key=value,value"]),
    ({"over": "network.hidden=[64,32"}, ["brackets and quotes closed"]),
    ({"over": "optimizer.learning_rate=0.01,1e-2"}, ["has 1e-2 twice", "leave one of them out"]),
    (
        {"over": "communication.every=1,4", "own": {"every_4": OWN["wide"]}},
        ["[study.own.every_4] that is another contestant"],
    ),
    ({"seeds": 0}, ["study.seeds = 0", "greater than or equal to 1", "--set study.seeds="]),
    ({"trials": 0}, ["study.trials = 0"]),
    ({"seds": 3}, ["study.seds", "did you mean 'seeds'"]),
    ({"budget": "sample"}, ["'sample'", "did you mean 'samples'"]),
    ({"ranks": [1, 0]}, ["study.ranks = [1, 0]", "at least 1"]),
    ({"ranks": [2, 2]}, ["study.ranks = [2, 2]", "each once"]),
    ({"amount": 3.0}, ["study.amount = 3", "no effect", "'wall_clock'"]),
    ({"budget": "wall_clock"}, ["study.amount = 0", "seconds"]),
    ({"budget": "target", "amount": 94}, ["study.amount = 94", "above 0 and below 1"]),
    ({"contestants": []}, ["study.contestants = []"]),
    (
        {"contestants": ["ensemble_shard"]},
        ["'ensemble_shard'", "did you mean 'ensemble_shards'", "[study.own.ensemble_shard]"],
    ),
    ({"contestants": ["one_rank", "one_rank"]}, ["'one_rank' twice"]),
    (
        {"own": {"a": {"base": "synchronos", "set": ["a.b=1"]}}},
        ["study.own.a, base", "synchronous"],
    ),
    ({"own": {"a": {"base": "synchronous"}}}, ["study.own.a, set"]),
    ({"own": {"a": OWN["wide"] | {"sett": 1}}}, ["study.own.a, sett", "did you mean 'set'"]),
    ({"own": {"one_rank": OWN["wide"]}}, ["[study.own.one_rank] that is another contestant"]),
    *[
        ({"own": {name: OWN["wide"]}}, ["a name of letters, digits"])
        for name in ("a/b", "..", "", "a b", "-a", "a" * 65, "ä")
    ],
]


@pytest.mark.parametrize("settings,words", REFUSED, ids=lambda x: str(x)[:40])
def test_refusals_name_key_value_and_remedy(settings, words):
    with pytest.raises(EnsyncError) as caught:
        study(**settings)
    for word in [*words, "job.toml"]:
        assert word in str(caught.value)


def test_everything_is_explained():
    text = explain_settings()
    assert "[study]" in text and "[study.own.NAME]" in text
    for name, spec in [*BUDGETS.items(), *CONTESTANTS.items()]:
        assert f"{name}: {spec.help}" in text
