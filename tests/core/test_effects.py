"""Settings without effect: refused where given, told where an override took their effect."""

import tomllib

import pytest
import tomli_w

from ensync.core.config.effects import DEPENDENCES, LAST, without_effect
from ensync.core.config.job import dump_job, job_from_dict, load_job
from ensync.core.config.network import NETWORKS
from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import walk
from ensync.nn.layers.normalization import BatchNormalization
from ensync.nn.models import zoo
from ensync.runs.describe import layer_table

SMALLEST = {"data": {"path": "d.h5"}, "output": {"directory": "runs/x"}}
SQUARED = {"loss": "mean_squared_error"}
TANH = {"layers": [{"kind": "dense", "activation": "tanh"}]}

IDLE = [  # a job with a setting without effect, and what it lacks for one
    (
        {"training": {**SQUARED, "label_smoothing": 0.1}},
        "training.label_smoothing",
        {"training": {"loss": "cross_entropy"}},
    ),
    ({"training": {"targets": [0.1, 0.9]}}, "training.targets", {"training": SQUARED}),
    ({"network": TANH}, LAST, {"training": SQUARED}),
    (
        {"network": {**TANH, "output_activation": "logistic"}, "training": SQUARED},
        LAST,
        {"network": {"output_activation": "auto"}},
    ),
    (
        {"training": {"epochs": 3, "max_steps": 40}},
        "training.epochs",
        {"training": {"max_steps": 0}},
    ),
    (
        {"training": {"virtual_shards": 4}},
        "training.virtual_shards",
        {"training": {"deterministic": True}},
    ),
    *(
        (
            {"evaluation": {name: value}},
            f"evaluation.{name}",
            {
                "network": {
                    "layers": [{"kind": "exit", "layers": [{"kind": "dense"}]}, {"kind": "dense"}]
                }
            },
        )
        for name, value in (("exit_threshold", 0.9), ("exit_confidence", "entropy"))
    ),
    (
        {"network": {"new_output": True}},
        "network.new_output",
        {"network": {"weights": "a.safetensors"}},
    ),
    *(
        (
            {"network": {"weights": "a.safetensors", name: "he_normal"}},
            f"network.{name}",
            {"network": {"new_output": True}},
        )
        for name in ("initializer", "output_initializer")
    ),
    ({"network": {"batch_norm": "local"}}, "network.batch_norm", {"network": {"name": "resnet"}}),
    (
        {"network": {"batch_norm": "local", "layers": [{"kind": "dense"}]}},
        "network.batch_norm",
        {
            "network": {
                "layers": [
                    {
                        "kind": "parallel",
                        "branches": [
                            [{"kind": "residual", "layers": [{"kind": "batch_normalization"}]}]
                        ],
                    },
                    {"kind": "dense"},
                ]
            }
        },
    ),
    (
        {"network": {"hidden": [], "activation": "tanh"}},
        "network.activation",
        {"network": {"hidden": [3]}},
    ),
    ({"network": {"hidden": [], "dropout": 0.2}}, "network.dropout", {"network": {"hidden": [3]}}),
    *[
        (
            {"optimizer": {"name": name, key: value}},
            f"optimizer.{key}",
            {"optimizer": {"name": wanted}},
        )
        for name, key, value, wanted in (
            ("adam", "momentum", 0.8, "nesterov"),
            ("sgd", "beta1", 0.8, "adam"),
            ("momentum", "beta2", 0.8, "adamw"),
            ("sgd", "epsilon", 1e-4, "adam"),
            ("sgd", "preset", "keras", "adamw"),
            ("momentum", "trust_coefficient", 0.1, "lars"),
            ("adam", "alpha", 0.9, "rmsprop"),
            ("momentum", "newton_schulz", 3, "muon"),
            ("nesterov", "rescale", True, "muon"),
        )
    ],
    (
        {"optimizer": {"name": "sgd", "decoupled": True}},
        "optimizer.decoupled",
        {"optimizer": {"groups": [{"parameters": "*", "weight_decay": 0.1}]}},
    ),
    *[
        ({"schedule": {key: value}}, f"schedule.{key}", {"schedule": {"name": name}})
        for key, value, name in (
            ("step_epochs", 3.0, "step"),
            ("factor", 0.5, "step"),
            ("milestones", [1.0, 2.0], "multi_step"),
            ("minimum", 0.1, "cosine"),
            ("power", 3.0, "polynomial"),
            ("start", 0.2, "triangular"),
            ("peak", 0.2, "one_cycle"),
            ("restart_epochs", 3.0, "cosine_restarts"),
            ("restart_growth", 2, "cosine_restarts"),
        )
    ],
    (
        {"schedule": {"name": "one_cycle", "start": 0.2, "peak": 0}},
        "schedule.start",
        {"schedule": {"peak": 0.1}},
    ),
    *[
        ({"plateau": {key: 0.5}}, f"plateau.{key}", {"plateau": {"patience": 2}})
        for key in ("factor", "threshold", "minimum")
    ],
    *[
        ({"lookahead": {key: 0.8}}, f"lookahead.{key}", {"lookahead": {"every_steps": 5}})
        for key in ("share", "power")
    ],
    *[
        (
            {"growth": {key: 3}},
            f"growth.{key}",
            {"growth": {"every_epochs": 2}, "training": {"batch": 1}},
        )
        for key in ("batch", "largest_batch", "learning_rate")
    ],
    (
        {"growth": {"every_epochs": 2}, "training": {"batch": "full"}},
        "growth.every_epochs",
        {"training": {"batch": 64}},
    ),
    (
        {"growth": {"every_epochs": 2}, "training": {"batch": 4096}},
        "growth.every_epochs",
        {"growth": {"largest_batch": 8192}},
    ),
    (
        {"growth": {"every_epochs": 2, "batch": 1}},
        "growth.every_epochs",
        {"growth": {"learning_rate": 1.5}},
    ),
    *[
        (
            {"augmentation": {change: 0.5}, "training": {"batch": 1}},
            f"augmentation.{change}",
            {"training": {"batch": 2}},
        )
        for change in ("mixup", "cutmix")
    ],
    (
        {"augmentation": {"rand_augment_magnitude": 5}},
        "augmentation.rand_augment_magnitude",
        {"augmentation": {"rand_augment": 1}},
    ),
    (
        {"augmentation": {"crop_edge": "reflect"}},
        "augmentation.crop_edge",
        {"augmentation": {"crop": 1}},
    ),
    (
        {"evaluation": {"augmentation": "ten_views"}},
        "evaluation.augmentation",
        {"augmentation": {"random_crop": 6}},
    ),
    (
        {"augmentation": {"flip": True, "epochs": 3}},
        "augmentation.epochs",
        {"augmentation": {"crop": 1}},
    ),
    *[
        (
            {"communication": {"every": every, key: value}},
            f"communication.{key}",
            {"communication": {"every": 8}},
        )
        for every, key, value in (
            ("never", "outer_learning_rate", 0.7),
            ("never", "outer_momentum", 0.9),
            (1, "start", 5),
            ("never", "average_optimizer", True),
            ("never", "compression", "bf16"),
            (1, "growth", 0.1),
            ("never", "growth", 0.1),
            ("never", "partners", "ring"),
            (1, "start_accuracy", 0.9),
        )
    ],
    *[
        (
            {"communication": {"every": 8, "partners": "ring", key: value}},
            f"communication.{key}",
            {"communication": {"partners": "all"}},
        )
        for key, value in (
            ("outer_learning_rate", 0.7),
            ("outer_momentum", 0.9),
            ("average_optimizer", True),
            ("growth", 0.1),
            ("compression", "bf16"),
        )
    ],
    (
        {"communication": {"every": 8, "estimate_statistics": True}},
        "communication.estimate_statistics",
        {"network": {"name": "minixception"}},
    ),
    *[
        (
            {"communication": {key: value, "compression": "bf16"}},
            f"communication.{key}",
            {"communication": {"compression": "none"}},
        )
        for key, value in (("overlap", True), ("bucket_megabytes", 3.0))
    ],
    (
        {"communication": {"overlap": False, "bucket_megabytes": 3.0}},
        "communication.bucket_megabytes",
        {"communication": {"overlap": True}},
    ),
    *[
        (
            {"communication": {"compression": "bf16", f"compression_{key}": value}},
            f"communication.compression_{key}",
            {"communication": {"compression": way}},
        )
        for way, key, value in (
            ("powersgd", "rank", 4),
            ("topk", "start", 0.2),
            ("int8", "block", 64),
            ("topk", "share", 0.1),
        )
    ],
    *[
        (
            {"communication": {key: value}},
            f"communication.{key}",
            {"communication": {"server": "seeded"}},
        )
        for key, value in (("max_staleness", 2), ("staleness_weight", "equal"))
    ],
    (
        {"communication": {"server": "arrival", "max_staleness": 0, "staleness_weight": "equal"}},
        "communication.staleness_weight",
        {"communication": {"max_staleness": 1}},
    ),
    (
        {"communication": {"shares": "speed"}, "training": {"strategy": "ensemble"}},
        "communication.shares",
        {"ensemble": {"members": 2}},
    ),
    (
        {"communication": {"shares": "speed"}, "training": {"batch": 1}},
        "communication.shares",
        {"training": {"batch": 2}},
    ),
    (
        {"parallel": {"convolutions": "data"}},
        "parallel.convolutions",
        {"parallel": {"model": 2}},
    ),
    (
        {"parallel": {"micro_batches": 4}},
        "parallel.micro_batches",
        {"parallel": {"stages": 2}},
    ),
    (
        {"ensemble": {"skew": 0.1}},
        "ensemble.skew",
        {"ensemble": {"data": "label_skew"}, "training": {"strategy": "ensemble"}},
    ),
    (
        {"ensemble": {"synchronous_epochs": 3}},
        "ensemble.synchronous_epochs",
        {"ensemble": {"start": "synchronous"}, "training": {"strategy": "ensemble"}},
    ),
]


def write(tmp_path, tables):
    path = tmp_path / "job.toml"
    path.write_text(tomli_w.dumps(tables))
    return path


def joined(*tables):
    whole = {section: dict(values) for section, values in SMALLEST.items()}
    for table in tables:
        for section, values in table.items():
            whole[section] = whole.get(section, {}) | values
    return whole


@pytest.mark.parametrize("tables,name,remedy", IDLE, ids=lambda x: x if isinstance(x, str) else "")
def test_a_setting_without_effect_is_refused(tmp_path, tables, name, remedy):
    """In a job file, not in a run that has it already; and not where it has an effect."""
    with pytest.raises(EnsyncError, match="without|no effect") as refused:
        load_job(write(tmp_path, joined(tables)))
    assert name in str(refused.value) and "\n" not in str(refused.value)
    assert name in " ".join(without_effect(job_from_dict(joined(tables))))
    assert not [
        line
        for line in without_effect(load_job(write(tmp_path, joined(tables, remedy))))
        if name in line
    ]


def test_every_dependence_was_tried():
    names = {name for _, name, _ in IDLE}
    assert all(set(rule.settings) <= names for rule in DEPENDENCES if rule.refused)


def test_an_override_is_refused_and_what_it_takes_the_effect_of_is_told(tmp_path):
    path = write(tmp_path, joined({"optimizer": {"name": "momentum", "momentum": 0.8}}))
    with pytest.raises(
        EnsyncError,
        match="optimizer.beta1 = 0.5 with optimizer.name = 'momentum' in .*job.toml, where it "
        "has no effect; expected optimizer.name = 'adam'",
    ):
        load_job(path, ["optimizer.beta1=0.5"])
    job = load_job(path, ["optimizer.name=adam"])
    assert without_effect(job) == [
        "optimizer.momentum = 0.8 has no effect with optimizer.name = 'adam'"
    ]
    assert job_from_dict(tomllib.loads(dump_job(job))) == job
    with pytest.raises(EnsyncError, match="optimizer.momentum = 0.7"):
        load_job(path, ["optimizer.name=sgd", "optimizer.momentum=0.7"])


def test_what_only_compare_uses_is_told(tmp_path):
    job = load_job(
        write(tmp_path, joined({"ensemble": {"members": 3}, "fusion": {"method": "hard_voting"}}))
    )
    assert without_effect(job) == [
        "ensemble.members = 3 has no effect with training.strategy = 'synchronous'",
        "fusion.method = 'hard_voting' has no effect with training.strategy = 'synchronous'",
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_are_what_the_dependences_say(name):
    network = zoo.build(
        job_from_dict(
            joined({"network": {"name": name, **({"width": 0.1} if name == "alexnet" else {})}})
        ),
        (67, 67, 3),
        10,
        1,
    )
    layers, spec = list(walk(network.layers)), NETWORKS[name]
    assert (
        any(isinstance(layer, BatchNormalization) for layer in layers) == spec.batch_normalization
    )


@pytest.mark.parametrize(
    "name,without,usual",
    [
        ("oregon-mlp", 1, 3),
        ("roy-mlp", 1, 2),
        ("lenet", 1, 3),
        ("minixception", 1, 2),
        ("parashar-cnn", 1, 3),
        ("alexnet", 1, 3),
    ],
)
def test_no_hidden_layers_are_none(name, without, usual):
    for hidden, count in (({"hidden": []}, without), ({}, usual)):
        settings = {"name": name, **hidden, **({"width": 0.1} if name == "alexnet" else {})}
        lines = layer_table(job_from_dict(joined({"network": settings})), (67, 67, 3), 10)
        assert sum("ense " in line for line in lines) == count
