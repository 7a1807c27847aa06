"""Job files: what is accepted, what is refused and with which words."""

import tomllib
from pathlib import Path

import pytest

from ensync.core.config.communication import Communication
from ensync.core.config.explanation import explain_settings
from ensync.core.config.job import Job, dump_job, job_from_dict, load_job
from ensync.core.config.study import Study
from ensync.core.errors import EnsyncError

SMALLEST = {"data": {"path": "d.h5"}, "output": {"directory": "runs/x"}}
JOBS = sorted((Path(__file__).parents[2] / "jobs").rglob("*.toml"))


def write(tmp_path, text):
    path = tmp_path / "job.toml"
    path.write_text(text)
    return path


def test_defaults_and_dump_read_back():
    job = job_from_dict(SMALLEST)
    assert job.training.batch == 64 and job.optimizer.name == "adam"
    assert job_from_dict(tomllib.loads(dump_job(job))) == job


@pytest.mark.parametrize("path", JOBS, ids=lambda p: p.name)
def test_every_job_file_loads(path):
    assert isinstance(load_job(path), Job)


def test_overrides(tmp_path):
    path = write(
        tmp_path, '[data]\npath = "d.h5"\n[output]\ndirectory = "r"\n[training]\nepochs = 3\n'
    )
    job = load_job(
        path,
        [
            "training.epochs=7",
            "network.hidden=[3, 4]",
            "optimizer.name=sgd",
            "training.batch=full",
            "optimizer.learning_rate=1e-2",
        ],
    )
    assert (
        job.training.epochs,
        job.network.hidden,
        job.optimizer.name,
        job.training.batch,
        job.optimizer.learning_rate,
    ) == (7, [3, 4], "sgd", "full", 0.01)


REFUSED = [
    ({"training": {"epoch": 3}}, ["training.epoch", "did you mean 'epochs'"]),
    ({"trainin": {}}, ["trainin", "did you mean 'training'"]),
    ({"training": {"epochs": 0}}, ["training.epochs = 0", "greater than or equal to 1"]),
    (
        {"training": {"epochs": 10**9}},
        ["training.epochs = 1000000000", "less than or equal to 1000000"],
    ),
    ({"training": {"epochs": "many"}}, ["training.epochs = 'many'", "integer"]),
    ({"training": {"batch": -1}}, ["training.batch = -1"]),
    ({"network": {"name": "mpl"}}, ["'mpl'", "did you mean 'mlp'"]),
    ({"network": {"dropout": 1.0}}, ["network.dropout = 1.0", "less than 1"]),
    ({"network": {"hidden": [3, 0]}}, ["network.hidden"]),
    ({"optimizer": {"learning_rate": float("nan")}}, ["learning_rate", "finite"]),
    (
        {"training": {"strategy": "ensemble"}, "fusion": {"method": "weight_averaging"}},
        ["weight_averaging", "common start", "ensemble.start"],
    ),
    ({"network": {"output_activation": "tanh"}}, ["tanh", "cross_entropy"]),
    ({"data": {}}, ["data.path", "ensync data prepare"]),
    ({"training": 3}, ["training = 3", "section"]),
]


@pytest.mark.parametrize("change,words", REFUSED, ids=lambda x: str(x)[:40])
def test_refusals_name_key_value_and_remedy(change, words):
    with pytest.raises(EnsyncError) as caught:
        job_from_dict({**SMALLEST, **change}, "job.toml")
    message = str(caught.value)
    assert "\n" not in message
    for word in [*words, "job.toml"]:
        assert word in message


@pytest.mark.parametrize(
    "text,word",
    [
        ("a = [", "not TOML"),
        ("\x00", "not TOML"),
        ("[" * 5000, "not TOML"),
        ("data = 1", "data = 1"),
    ],
)
def test_files_that_are_not_jobs(tmp_path, text, word):
    with pytest.raises(EnsyncError, match=word):
        load_job(write(tmp_path, text))


def test_absent_file_names_the_nearest(tmp_path):
    path = write(tmp_path, "")
    with pytest.raises(EnsyncError, match="job.toml"):
        load_job(str(path).replace("job", "jbo"))
    with pytest.raises(EnsyncError, match="is a directory"):
        load_job(tmp_path)


@pytest.mark.parametrize("text", ["epochs=3", "training.epochs", "training.=3", "=", ".a=1"])
def test_overrides_that_are_not(tmp_path, text):
    path = write(tmp_path, '[data]\npath = "d.h5"\n[output]\ndirectory = "r"\n')
    with pytest.raises(EnsyncError, match="section.key=value"):
        load_job(path, [text])


@pytest.mark.parametrize(
    "layers,words",
    [
        (
            [
                {"kind": "flatten"},
                {"kind": "residual", "layers": [{"kind": "convolution", "filters": 3, "sise": 3}]},
            ],
            ["network.layers 2 (residual), layers 1 (convolution), sise", "did you mean 'size'"],
        ),
        ([{"kind": "convolutional"}], ["network.layers 1", "did you mean 'convolution'"]),
        ([{"filters": 3}], ["network.layers 1", "no kind"]),
        (
            [{"kind": "convolution", "filters": 3, "size": [1]}],
            ["network.layers 1 (convolution), size = [1]", "its height, then its width"],
        ),
        ([{"kind": "convolution"}], ["network.layers 1 (convolution), filters", "channels"]),
        (
            [
                {
                    "kind": "parallel",
                    "branches": [
                        [{"kind": "dense"}],
                        [{"kind": "dense"}, {"kind": "dense", "units": 0}],
                    ],
                }
            ],
            ["branches 2 2 (dense), units = 0"],
        ),
    ],
)
def test_layers_are_refused_by_place_and_key(layers, words):
    with pytest.raises(EnsyncError) as caught:
        job_from_dict({**SMALLEST, "network": {"layers": layers}}, "job.toml")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "network,word",
    [
        ({"name": "mlp", "depth": 20}, "resnet, vgg"),
        ({"name": "layers"}, "list of layers"),
        ({"name": "mlp", "layers": [{"kind": "dense"}]}, "remove one"),
    ],
)
def test_settings_of_other_networks_are_refused(network, word):
    with pytest.raises(EnsyncError, match=word):
        job_from_dict({**SMALLEST, "network": network})


def test_settings_are_explained():
    text = explain_settings()
    assert '[[network.layers]] kind = "convolution"' in text and "(list of list of layer)" in text
    sections = {name: field.annotation for name, field in Job.model_fields.items()} | {
        "study": Study
    }
    for section, kind in sections.items():
        for key, setting in kind.model_fields.items():
            assert setting.description and f"  {key} = " in text, (section, key)


@pytest.mark.parametrize(
    "section,key,value",
    [
        ("training", "deterministic", True),
        ("training", "weight_average", 0.9),
        ("lookahead", "every_steps", 5),
    ],
)
@pytest.mark.parametrize(
    "apart",
    [{"every": 4}, {"every": "never"}, {"outer_momentum": 0.9}, {"partners": "butterfly"}],
)
def test_what_supposes_equal_replicas_is_refused_where_they_differ(section, key, value, apart):
    tables = {"data": {"path": "x.h5"}, "output": {"directory": "x"}, section: {key: value}}
    assert not job_from_dict(tables).communication.is_local
    with pytest.raises(EnsyncError, match=rf"^{section}.{key} = .*replicas that differ") as refused:
        job_from_dict(tables | {"communication": apart})
    assert "communication.every = 1" in str(refused.value)


def test_what_has_the_same_bits_on_any_ranks_is_not_rounded_off():
    tables = {"data": {"path": "x.h5"}, "output": {"directory": "x"}}
    given = {"training": {"deterministic": True}, "communication": {"compression": "bf16"}}
    with pytest.raises(EnsyncError, match="communication.compression = 'bf16'"):
        job_from_dict(tables | given)


@pytest.mark.parametrize(
    ("rate", "steps"), [(0.4, 0), (0.2, 1), (0.1, 4), (0.0999, 4), (0.089, 5), (0.0, 1 << 40)]
)
def test_an_interval_grows_with_the_square_of_the_inverse_rate(rate, steps):
    """A rate whose last digit is another one on other CPUs gives the same interval."""
    c = Communication(every=2, growth=0.2)
    for nearly in (rate, rate * (1 + 1e-15), rate * (1 - 1e-15)):
        assert c.grown(nearly) == pytest.approx(steps, rel=1e-6)
    assert Communication(every=2).grown(rate) == 0


WITH_EXIT = {
    "layers": [{"kind": "exit", "layers": [{"kind": "dense"}]}, {"kind": "dense"}],
}


def test_exits_have_probabilities():
    tables = {"data": {"path": "x.h5"}, "output": {"directory": "x"}, "network": WITH_EXIT}
    with pytest.raises(EnsyncError, match="training.loss = .* with a layer of kind 'exit'"):
        job_from_dict(tables | {"training": {"loss": "mean_squared_error"}})


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("training", {"deterministic": True}, "training.deterministic = true"),
        ("communication", {"every": 4}, "settings of \\[communication\\]"),
        ("optimizer", {"clip_norm": 1.0}, "optimizer.clip_norm = 1.0"),
        ("optimizer", {"name": "muon"}, "the optimiser 'muon'"),
        (
            "optimizer",
            {"name": "sgd", "groups": [{"parameters": "*", "name": "lars"}]},
            "the optimiser 'lars'",
        ),
        ("network", {"weights": "a.safetensors"}, "network.weights = 'a.safetensors'"),
        ("network", WITH_EXIT, "a layer of kind 'exit'"),
    ],
)
def test_what_needs_a_whole_network_is_refused_where_ranks_have_parts(section, values, said):
    tables = {"data": {"path": "x.h5"}, "output": {"directory": "x"}, section: values}
    assert job_from_dict(tables).parallel.model == 1
    with pytest.raises(EnsyncError, match=f"^{said} with parallel.model = 2") as refused:
        job_from_dict(tables | {"parallel": {"model": 2}})
    assert "parallel.model = 1" in refused.value.action


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("training", {"deterministic": True}, "training.deterministic = true"),
        ("communication", {"every": 4}, r"settings of \[communication\]"),
        ("optimizer", {"clip_norm": 1.0}, "optimizer.clip_norm = 1.0"),
        (
            "optimizer",
            {"groups": [{"parameters": "*", "learning_rate": 0.1}]},
            r"\[\[optimizer.groups\]\]",
        ),
        ("network", {"weights": "a.safetensors"}, "network.weights = 'a.safetensors'"),
        ("parallel", {"model": 2}, "parallel.model = 2"),
    ],
)
def test_what_stages_cannot_have_is_refused(section, values, said):
    tables = {"data": {"path": "x.h5"}, "output": {"directory": "x"}, section: values}
    stages = {"parallel": tables.get("parallel", {}) | {"stages": 3}}
    with pytest.raises(EnsyncError, match=f"^{said} with parallel.stages = 3") as refused:
        job_from_dict(tables | stages)
    assert "parallel.stages = 1" in refused.value.action


@pytest.mark.parametrize(("batch", "parts", "instead"), [(100, 3, 2), (8, 16, 8)])
def test_micro_batches_are_equal_parts(batch, parts, instead):
    tables = {"data": {"path": "x.h5"}, "output": {"directory": "x"}}
    tables |= {"training": {"batch": batch}, "parallel": {"stages": 2, "micro_batches": parts}}
    with pytest.raises(EnsyncError, match=f"micro_batches = {parts} with training.batch") as why:
        job_from_dict(tables)
    assert f"set parallel.micro_batches = {instead}," in why.value.action


@pytest.mark.parametrize("every", [0, -1, "always", 2.5])
def test_meetings_are_every_so_many_steps_or_never(every):
    tables = {"data": {"path": "x.h5"}, "output": {"directory": "x"}}
    with pytest.raises(EnsyncError, match="communication.every"):
        job_from_dict(tables | {"communication": {"every": every}})


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"training": {"deterministic": True}}, "training.deterministic = true"),
        ({"network": {"name": "resnet", "batch_norm": "local"}}, "rows of each rank"),
        (
            {
                "network": {"layers": [{"kind": "batch_normalization"}, {"kind": "dense"}]},
                "communication": {"every": 4},
            },
            "rows of each rank",
        ),
        ({"network": {"name": "resnet"}, "communication": {"server": "seeded"}}, "of each rank"),
    ],
)
def test_parts_by_speed_that_would_change_the_result_are_refused(sections, named):
    tables = {"data": {"path": "x.h5"}, "output": {"directory": "x"}, **sections}
    job_from_dict(tables)
    by_speed = {**tables.get("communication", {}), "shares": "speed"}
    with pytest.raises(EnsyncError, match=f"^communication.shares = 'speed' with .*{named}"):
        job_from_dict(tables | {"communication": by_speed})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("communication", "every", 4),
        ("communication", "outer_momentum", 0.5),
        ("communication", "compression", "bf16"),
        ("training", "deterministic", True),
        ("training", "weight_average", 0.9),
        ("lookahead", "every_steps", 5),
    ],
)
def test_what_has_no_place_beside_a_server_is_refused(section, key, value):
    tables = {"data": {"path": "x.h5"}, "output": {"directory": "x"}}
    server = {"communication": {"server": "seeded", "shares": "speed", "max_staleness": 2}}
    assert job_from_dict(tables | server).communication.is_served
    given = {**server, section: {**server.get(section, {}), key: value}}
    with pytest.raises(EnsyncError, match=f"^communication.server = 'seeded' with {section}.{key}"):
        job_from_dict(tables | given)
