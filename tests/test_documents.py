"""Every command that README files, --help and the headers of jobs and batch scripts show exists
and parses.
"""

import re
import shlex
from pathlib import Path

import click
import pytest

from ensync.cli.main import cli
from ensync.core.config.job import load_job

ROOT = Path(__file__).parents[1]
MADE = (
    "runs/",
    "data/",
    "photos/",
    "table.csv",
)  # what the commands before it make, or the user has


def help_texts(command=cli, path=("ensync",)):
    """Yield where and what of each command's help."""
    yield (
        " ".join(path) + " --help",
        command.get_help(click.Context(command, info_name=" ".join(path))),
    )
    for name, inner in getattr(command, "commands", {}).items():
        yield from help_texts(inner, (*path, name))


def documents():
    """Yield where and what of each document with commands."""
    for pattern in (
        "*.md",
        "*/README.md",
        "tests/*/README.md",
        "jobs/**/*.toml",
        "slurm/*",
        "Makefile",
    ):
        for path in sorted(ROOT.glob(pattern)):
            yield str(path.relative_to(ROOT)), path.read_text()
    yield from help_texts()


def commands(text):
    """Return the words of each command in a text that begins with ensync, mpirun, srun, sbatch
    or make.
    """
    found = []
    quoted = re.findall(r"`([^`\n]+)`", text)
    lines = [re.sub(r"^\s*#?\s*(\$ )?", "", line) for line in text.splitlines()]
    for line in [*lines, *quoted]:
        shown = re.split(r"\s{2,}|\s+#\s|\s+->\s", line.strip())[0].rstrip("\\ .,:;")
        for part in re.split(r"&&|\|", shown):
            try:
                words = shlex.split(part)
            except ValueError:
                continue
            if (
                len(words) > 1
                and words[0] in ("ensync", "mpirun", "srun", "sbatch", "make")
                and words[1] not in SENTENCE
                and not words[1][0].isdigit()
            ):
                found.append(words)
    return found


SENTENCE = (
    "is",
    "starts",
    "as",
    "and",
    "has",
    "inside",
    "itself",
    "verb",
    "was",
    "says",
    "writes",
    "under",
    "demo:",
    "of",
    "makes",
    "JOB",
)
CASES = sorted({(where, tuple(words)) for where, text in documents() for words in commands(text)})


def test_there_are_commands():
    assert len({where for where, _ in CASES}) > 15 and len(CASES) > 60


@pytest.mark.parametrize(
    ("where", "words"), CASES, ids=[f"{where}: {' '.join(words)}" for where, words in CASES]
)
def test_a_command_exists_and_parses(where, words):
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word and word not in targets] == []
        return
    if words[0] == "sbatch":
        script = next((word for word in words if word.endswith(".sbatch")), None)
        if script is None:  # a mention of an option
            return
        assert (ROOT / script).is_file()
        check_job(words[words.index(script) + 1 :])
        return
    if "ensync" in words:
        ours = [word.strip("[]") for word in words[words.index("ensync") + 1 :] if word != "..."]
        parse(cli, ours)
        check_job(ours)


def parse(command, words):
    """Parse a command line down to the verb, without running it; a text may leave arguments out."""
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no verb {words[0]}"
        parse(command.commands[words[0]], words[1:])
        return
    try:
        command.make_context("ensync", list(words))
    except click.MissingParameter:
        pass
    except click.exceptions.Exit as ended:  # --help
        assert ended.exit_code == 0


def check_job(words):
    """Load the job that the words name, with what they set."""
    job = next((word for word in words if word.endswith(".toml") and "JOB" not in word), None)
    if job is None:
        return
    given = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--set"]
    given = [text for text in given if "SECTION" not in text and "section" not in text]
    assert (ROOT / job).is_file(), f"{job} does not exist"
    load_job(str(ROOT / job), tuple(given))
