"""Each kind of bad input gets one sentence of three parts from rank 0, exit code 2 on every rank,
and nothing is written.

Most command lines run one after the other within one start on two ranks (commands.py).
"""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from launched import launch
from launched.conftest import JOB

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(400)]

ENSEMBLE = ["--set", "training.strategy=ensemble"]


def train(*settings, job="job.toml", to="runs/new"):
    return [
        "train",
        job,
        "--set",
        f"output.directory={to}",
        *(word for setting in settings for word in ("--set", setting)),
    ]


# name: (command line, what the sentence must say)
MISTAKES = {
    "unknown setting": (
        train("training.epoch=2"),
        ["'training.epoch'", "did you mean 'epochs'", "label_smoothing"],
    ),
    "unknown section": (
        train("trainig.epochs=2"),
        ["'trainig'", "did you mean 'training'", "optimizer"],
    ),
    "unknown setting in the file": (
        train(job="unknown.toml"),
        ["'optimizer.learningrate' in unknown.toml", "did you mean 'learning_rate'"],
    ),
    "number too small": (
        train("training.epochs=-3"),
        ["training.epochs = -3", "greater than or equal to 1", "--set training.epochs="],
    ),
    "no number": (train("training.epochs=many"), ["training.epochs = 'many'", "integer"]),
    "not finite": (
        train("optimizer.learning_rate=nan"),
        ["optimizer.learning_rate = nan", "finite"],
    ),
    "unknown word": (
        train("network.activation=rellu"),
        ["'rellu'", "did you mean 'relu'", "'tanh'"],
    ),
    "no batch": (
        train("training.batch=0"),
        ["training.batch = 0 in job.toml;", "greater than or equal to 1"],
    ),
    "two mistakes": (
        train("training.epochs=0", "training.batch=0"),
        ["training.epochs = 0", "(and 1 more)"],
    ),
    "nothing given": (train("training.epochs="), ["training.epochs = ''"]),
    "job file missing": (train(job="jbo.toml"), ["no file 'jbo.toml'", "did you mean 'job.toml'"]),
    "job file not TOML": (train(job="broken.toml"), ["'broken.toml' is not TOML", "line 2"]),
    "job file not text": (train(job="digits.h5"), ["'digits.h5' is not a text file"]),
    "a run for a job file": (
        train(job="runs/job"),
        ["'runs/job' is a directory", "ensync resume runs/job"],
    ),
    "job without data": (train(job="empty.toml"), ["no 'data' in empty.toml"]),
    "--set without value": (
        train("training.epochs"),
        ["--set training.epochs;", "section.key=value"],
    ),
    "--set without section": (train("epochs=2"), ["--set epochs=2;", "section.key=value"]),
    "--set too deep": (train("a.b.c=1"), ["unknown section 'a'"]),
    "dataset missing": (
        train("data.path=digit.h5"),
        ["digit.h5 does not exist", "ensync data prepare"],
    ),
    "dataset cut short": (train("data.path=short.h5"), ["short.h5"]),
    "dataset with another inside": (train("data.path=emptied.h5"), ["emptied.h5"]),
    "dataset not HDF5": (
        train("data.path=job.toml"),
        ["job.toml is not an HDF5 file", "data/README.md"],
    ),
    "dataset a directory": (train("data.path=runs"), ["runs is a directory"]),
    "no directory": (
        train(to=""),
        ["output.directory = ''", "at least 1 character", "--set output.directory="],
    ),
    "directory behind a file": (
        train(to="job.toml"),
        ["'job.toml' cannot be made", "--set output.directory=DIR"],
    ),
    "directory below a file": (train(to="job.toml/run"), ["'job.toml/run' cannot be made"]),
    "directory where none can be": (train(to="/proc/none"), ["'/proc/none' cannot be made"]),
    "run there already": (
        ["train", "job.toml"],
        ["'runs/job' holds a run already", "ensync resume runs/job", "--overwrite"],
    ),
    "overwriting with a mistake": (
        ["train", "job.toml", "--overwrite", "--set", "data.path=digit.h5"],
        ["digit.h5 does not exist"],
    ),
    "network beyond memory": (
        train("network.hidden=[1000000,1000000]"),
        [
            "about 56.0 TB of memory on",
            "2 ranks x (",
            "of weights and optimiser",
            "take a smaller network",
            "start fewer ranks",
        ],
    ),
    "name too long": (train(to="x" * 300), ["x" * 300, "too long"]),
    "resume a name too long": (["resume", "x" * 300], ["too long"]),
    "predict a name too long": (["predict", "runs/job", "x" * 300], ["too long"]),
    "job file in a circle": (train(job="circle.toml"), ["'circle.toml'", "symbolic links"]),
    "too many threads": (train("training.threads=1000"), ["training.threads = 1000", "1 to "]),
    "weight averaging apart": (
        train("training.strategy=ensemble", "fusion.method=weight_averaging", "ensemble.start=own"),
        ["weight_averaging", "common start", "'shared'"],
    ),
    "members negative": (
        train("training.strategy=ensemble", "ensemble.members=-1"),
        ["ensemble.members = -1"],
    ),
    "members beyond the rows": (
        train("training.strategy=ensemble", "ensemble.members=400"),
        ["400 members", "at least one image for each"],
    ),
    "members beyond measure": (
        train("training.strategy=ensemble", "ensemble.members=5000"),
        ["ensemble.members = 5000", "at most 4096"],
    ),
    "softmax left out": (
        train("network.output_activation=tanh"),
        ["output_activation = 'tanh'", "cross_entropy"],
    ),
    "early stopping without validation": (
        train("data.path=unvalidated.h5", "training.early_stopping=2"),
        ["training.early_stopping = 2", "no validation images", "--validation"],
    ),
    "best weights without validation": (
        train("data.path=unvalidated.h5", "training.best_weights=true"),
        ["training.best_weights", "no validation images"],
    ),
    "weighing without validation": (
        train(
            "data.path=unvalidated.h5",
            "training.strategy=ensemble",
            "fusion.method=weighted_voting",
        ),
        ["weighted_voting", "no validation images"],
    ),
    "resume nothing": (["resume", "runs/jbo"], ["no run at 'runs/jbo'", "did you mean 'runs/job'"]),
    "resume no run": (["resume", "nothing"], ["'nothing' holds no valid checkpoint"]),
    "resume a job file": (["resume", "job.toml"], ["job.toml is not an Ensync checkpoint"]),
    "resume another network": (
        ["resume", "runs/job", "--set", "training.epochs=9", "--set", "network.hidden=[8]"],
        ["from another network", "(1210,)", "(610,)"],
    ),
    "resume with fewer epochs": (
        ["resume", "runs/job", "--set", "training.epochs=1"],
        ["training.epochs = 1 for a run that has 3 epochs", "ensync evaluate"],
    ),
    "resume with another strategy": (
        ["resume", "runs/job", *ENSEMBLE],
        ["training.strategy = 'ensemble'", "started with 'synchronous'"],
    ),
    "resume with another seed": (
        ["resume", "runs/job", "--set", "training.seed=9"],
        ["training.seed = 9", "started with 1"],
    ),
    "resume with other start values": (
        ["resume", "runs/job", "--set", "network.initializer=pytorch"],
        ["network.initializer = 'pytorch'", "started with 'auto'"],
    ),
    "a setting without effect": (
        train("optimizer.name=sgd", "optimizer.beta1=0.5"),
        ["optimizer.beta1 = 0.5 with optimizer.name = 'sgd'", "'adam' or 'adamw'"],
    ),
    "resume on other data": (
        ["resume", "runs/job", "--set", "data.path=unvalidated.h5"],
        ["unvalidated.h5 is not the one"],
    ),
    "evaluate another network": (
        ["evaluate", "runs/job", "--set", "network.hidden=[8]"],
        ["(1210,)", "(610,)", "'digits', 8 x 8 x 1, 10 classes"],
    ),
    "evaluate with another normalisation": (
        ["evaluate", "runs/job", "--set", "data.normalization=none"],
        ["data.normalization = 'none'", "trained with 'standard'"],
    ),
    "evaluate with a setting of training": (
        ["evaluate", "runs/job", "--set", "optimizer.learning_rate=1"],
        ["optimizer.learning_rate", "does not train", "ensync resume"],
    ),
    "fuse as started alike": (
        ["fuse", "runs/job", "--set", "ensemble.start=shared"],
        ["ensemble.start", "does not train"],
    ),
    "predict with another activation": (
        ["predict", "runs/job", "digits.h5", "--set", "network.activation=tanh"],
        ["network.activation = 'tanh'", "trained with its default"],
    ),
    "evaluate a dataset": (["evaluate", "digits.h5"], ["digits.h5 is not an Ensync checkpoint"]),
    "predict what is missing": (["predict", "runs/job", "none.png"], ["none.png does not exist"]),
    "predict what is no image": (["predict", "runs/job", "job.toml"], ["job.toml", "decoded"]),
    "sweep over nothing": (
        ["sweep", "job.toml", "--over", "optimizer.learning_rate"],
        ["--over optimizer.learning_rate;", "section.key=value,value"],
    ),
    "sweep over a bracket": (
        ["sweep", "job.toml", "--over", "network.hidden=[8],[9"],
        ["brackets and quotes closed", "network.hidden=[64,32],[32]"],
    ),
    "sweep over one value twice": (
        ["sweep", "job.toml", "--over", "optimizer.learning_rate=0.1,1e-1"],
        ["0.1 and 1e-1, the same value twice"],
    ),
    "sweep over the unknown": (
        ["sweep", "job.toml", "--over", "optimizer.rate=1,2"],
        ["'optimizer.rate'", "learning_rate"],
    ),
    "sweep with a wrong value": (
        ["sweep", "job.toml", "--over", "optimizer.learning_rate=0.1,-1"],
        ["optimizer.learning_rate = -1"],
    ),
    "compare without a directory": (
        ["compare", "job.toml", "--set", "output.directory=job.toml"],
        ["cannot be made"],
    ),
    "study without a seed": (["compare", "job.toml", "--seeds", "0"], ["study.seeds = 0"]),
    "study on ranks that are not there": (
        ["compare", "job.toml", "--ranks", "1,3"],
        ["study.ranks = [1, 3] with 2 ranks launched", "mpirun -n 3"],
    ),
    "study of the unknown": (
        ["compare", "job.toml", "--contestants", "one_rank,synchronus"],
        ["'synchronus'", "did you mean 'synchronous'?"],
    ),
    "study without a rank for its contestant": (
        ["compare", "job.toml", "--ranks", "1", "--contestants", "ensemble_full"],
        ["nothing is left", "one network is no ensemble"],
    ),
    "study without its budget": (
        ["compare", "job.toml", "--budget", "target"],
        ["study.amount = 0 with study.budget = 'target'"],
    ),
    "cell that is not there": (
        ["compare", "job.toml", "--seeds", "1", "--contestants", "one_rank", "--cell", "1"],
        ["--cell 1", "a number from 0 to 0"],
    ),
    "packing without a study": (
        ["compare", "job.toml", "--pack"],
        ["--pack with job.toml, which has no section [study]"],
    ),
}

# Told by click, or by verbs of one process: a sentence, and rank 0's alone.
PLAIN = {
    "verb misspelt": (
        ["trian", "job.toml"],
        ["no verb 'trian'", "did you mean 'train'", "ensync --help"],
    ),
    "verb of data misspelt": (
        ["data", "prepar", "digits"],
        ["no verb 'prepar'", "did you mean 'prepare'"],
    ),
    "option misspelt": (
        ["train", "job.toml", "--overwrit"],
        ["'--overwrit'", "'--overwrite'", "ensync train --help"],
    ),
    "argument missing": (["resume"], ["'RUN'", "ensync resume --help"]),
    "option without argument": (["train", "job.toml", "--set"], ["'--set'"]),
    "method unknown": (["fuse", "runs/job", "--method", "soft"], ["'soft'", "'soft_voting'"]),
}
ALONE = {
    "dataset unknown": (
        ["data", "prepare", "digit"],
        ["'digit'", "did you mean 'digits'", "cifar-10"],
    ),
    "source unsaid": (["data", "prepare", "csv"], ["csv", "--from"]),
    "label out of range": (
        ["data", "prepare", "csv", "--from", "labels.csv", "--to", "labels.h5"],
        ["line 3", "label"],
    ),
    "pixel out of range": (
        ["data", "prepare", "csv", "--from", "pixels.csv", "--to", "pixels.h5"],
        ["line 2"],
    ),
    "download unwanted": (["data", "prepare", "digits", "--download"], ["--download", "digits"]),
    "describe nothing": (
        ["describe", "jbo.toml"],
        ["no file 'jbo.toml'", "did you mean 'job.toml'"],
    ),
    "describe no dataset": (["data", "describe", "job.toml"], ["job.toml is not an HDF5 file"]),
}


@pytest.fixture(scope="module")
def flawed(shared_place):
    """The place with a trained run and one file for each mistake."""
    place = shared_place
    place.done(1, "train", "job.toml")
    (place / "nothing").mkdir()
    (place / "broken.toml").write_text('[data]\npath = "digits.h5\n')
    (place / "empty.toml").write_text("")
    (place / "circle.toml").symlink_to("circle.toml")
    (place / "unknown.toml").write_text(JOB.replace("learning_rate", "learningrate"))
    whole = (place / "digits.h5").read_bytes()
    (place / "short.h5").write_bytes(whole[: len(whole) // 2])
    (place / "emptied.h5").write_bytes(whole[:512] + bytes(len(whole) - 512))
    assert not subprocess.run(
        [
            launch.sys.executable,
            "-m",
            "ensync",
            "data",
            "prepare",
            "digits",
            "--validation",
            "0",
            "--to",
            "unvalidated.h5",
        ],
        cwd=place.directory,
        env=launch.environment(),
        capture_output=True,
        check=False,
    ).returncode
    rows = np.zeros((4, 785), int)
    for name, spoilt, value in (("labels.csv", (2, 0), -1), ("pixels.csv", (1, 5), 1000)):
        rows[:] = np.arange(4)[:, None]
        rows[spoilt] = value
        np.savetxt(place / name, rows, fmt="%d", delimiter=",")
    return place


def tree(directory):
    """Every file below a directory with its content."""
    return {
        str(p.relative_to(directory)): p.read_bytes() if p.is_file() else None
        for p in directory.rglob("*")
        if not p.name.startswith("commands.json")
    }


@pytest.fixture(scope="module")
def told(flawed):
    """What each rank said to each mistake, and whether any file changed by all of them."""
    before = tree(flawed.directory)
    records = flawed.all_of(
        2, {name: command for name, (command, _) in (MISTAKES | PLAIN | ALONE).items()}
    )
    after = tree(flawed.directory)
    return records, {
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    }


def check_sentence(text, parts):
    assert text.endswith((".\n", "`.\n")) and text.count("\n") == 1 and "Traceback" not in text, (
        text
    )
    for part in parts:
        assert part in text, text


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_costs_one_sentence_and_code_2_on_every_rank(told, name):
    root, other = told[0][name]
    assert (root["code"], other["code"], other["out"], other["err"]) == (2, 2, "", "")
    check_sentence(root["err"], MISTAKES[name][1])
    assert re.search(r"; expected .*; ", root["err"]), root["err"]
    assert root["out"] == "" or name == "compare without a directory", (
        "work began before the mistake was told"
    )


@pytest.mark.parametrize("name", [*PLAIN, *ALONE])
def test_a_mistake_before_any_rank_works_is_told_once(told, name):
    root, other = told[0][name]
    assert (root["code"], root["out"], other["out"], other["err"]) == (2, "", "", "")
    assert other["code"] == 2
    check_sentence(root["err"], (PLAIN | ALONE)[name][1])


def test_mistakes_leave_every_file_as_it_was(told):
    assert told[1] == set()


def test_mpirun_passes_the_code_on(place):
    ended = place.ensync(2, "train", "jbo.toml")
    assert (
        ended.code == 2
        and ended.out == ""
        and ended.err.count("no file 'jbo.toml'") == 1
        and "Traceback" not in ended.err
    )


@pytest.fixture
def small_disk(place):
    """A file system of its own of 256 kB below the place."""
    mount = place / "disk"
    mount.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root mounts a small file system")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(mount)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_is_one_sentence_and_the_checkpoints_before_are_whole(place, small_disk):
    """The first epochs fit, then a neighbour fills the disk."""
    run = [
        "--set",
        "output.directory=disk/run",
        "--set",
        "checkpoint.keep=100",
        "--set",
        "training.epochs=100",
    ]
    ended = place.ensync(2, "train", "job.toml", *run)
    sentences = [line for line in ended.err.splitlines() if "cannot be written" in line]
    assert (
        ended.code == 2
        and len(sentences) == 1
        and "no space is left on the device" in sentences[0]
        and "Traceback" not in ended.err
    ), ended
    kept = place.checkpoints("disk/run")
    assert kept and all(name.startswith("checkpoint-") for name in kept)
    (small_disk / "run" / "checkpoints" / kept[0]).unlink()
    described = place.done(1, "describe", "disk/run")
    assert kept[-1] in described and "left aside" not in described


def test_a_directory_that_became_read_only_is_one_sentence(place, small_disk):
    place.done(1, "train", "job.toml", "--set", "output.directory=disk/run")
    before = tree(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    commands = {
        "train": train(to="disk/other"),
        "overwrite": [*train(to="disk/run"), "--overwrite"],
        "resume": ["resume", "disk/run", "--set", "training.epochs=9"],
        "fuse": ["fuse", "disk/run"],
        "evaluate": ["evaluate", "disk/run"],
    }
    records = place.all_of(2, commands)
    assert [record["code"] for record in records.pop("evaluate")] == [0, 0]
    for root, other in records.values():
        assert (root["code"], other["code"], other["err"]) == (2, 2, "")
        check_sentence(root["err"].replace("Read", "read"), ["read-only"])
    assert tree(small_disk) == before
