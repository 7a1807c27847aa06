"""Every text on its way out: no control characters, and sentences for what the machine refuses."""

import errno
import os
import unicodedata

import pytest

from ensync.cli.main import main
from ensync.core.errors import EnsyncError, nearest, printable, printable_lines, sentence

STEERING = "a\x1b[2J\x9bm\r\nb\u202ec\u2066\u2028\udcff\x00"


def is_clean(text):
    return not any(
        unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text
    )


def test_what_steers_a_terminal_is_shown_and_not_done():
    assert printable(STEERING) == r"a\x1b[2J\x9bm\r\nb\u202ec\u2066\u2028\udcff\x00"
    assert (
        printable("[red]naïve 猫 \N{ZERO WIDTH JOINER}\N{NO-BREAK SPACE}")
        == "[red]naïve 猫 \N{ZERO WIDTH JOINER}\N{NO-BREAK SPACE}"
    )
    assert printable_lines("a\n\tb\n") == "a\n\\tb\n"
    assert is_clean(str(EnsyncError(f"'{STEERING}'", STEERING, STEERING)))


MACHINE = [
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EACCES,
    errno.ENOSPC,
    errno.EROFS,
    errno.EMFILE,
    errno.ENOENT,
]


@pytest.mark.parametrize("code", MACHINE, ids=lambda code: errno.errorcode[code])
def test_what_the_system_refuses_is_a_sentence_with_the_path(code):
    told = str(sentence(OSError(code, os.strerror(code), "dir/x\ny")))
    assert told.startswith(r"dir/x\ny cannot be used because ") and "expected" in told
    assert str(sentence(OSError(code, os.strerror(code)))).startswith("the system refuses")


def test_memory_and_threads_are_sentences_and_bugs_are_not():
    import numpy as np

    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, np.uint8)
    assert "not enough memory (Unable to allocate 1.00 EiB" in str(
        sentence(caught.value)
    ) and "training.batch" in str(sentence(caught.value))
    assert sentence(RuntimeError("can't start new thread")) is not None
    assert [
        sentence(bug)
        for bug in (ValueError("x"), RuntimeError("x"), OSError(errno.EBADF, "x"), OSError("x"))
    ] == [None] * 4


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["describe", LONG],
        ["describe", f"{LONG}.toml"],
        ["describe", f"{LONG}/x.h5"],
        ["data", "describe", LONG],
        ["submit", LONG],
        ["collect", "--over", "ranks", LONG],
        ["describe", "circle"],
        ["describe", "circle.toml"],
        ["describe", "a.toml/b.toml"],
        ["describe", "a.toml/b"],
        ["describe", "d.toml"],
        ["describe", STEERING.rstrip("\0")],
        ["describe", STEERING.rstrip("\0") + ".toml"],
        [STEERING],
        ["data", STEERING],
        ["describe", f"--{STEERING}"],
        ["describe", "a.toml", "--set", STEERING],
        ["describe", "a.toml", "--set", f"network.name={STEERING}"],
        ["describe", "a.toml", "--set", f"{STEERING}.x=1"],
        ["describe", "a.toml", "--set", f"data.{STEERING}=1"],
        ["describe", "a.toml", "--set", f"data.path={STEERING}"],
        ["describe", "s\x1b[2J\n.toml"],
        ["data", "prepare", STEERING.rstrip("\0")],
        ["collect", "--over", STEERING, "."],
        ["submit", "a.toml", "--time", STEERING],
    ],
)
def test_names_of_every_kind_are_one_clean_line(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text('[data]\npath = "none.h5"\n[output]\ndirectory = "runs"\n')
    (tmp_path / "s\x1b[2J\n.toml").write_text(
        '[data]\npath = "a\\u001b[2J\\nb"\n[output]\ndirectory = "runs"\n'
    )
    (tmp_path / "d.toml").mkdir()
    for name in ("circle", "circle.toml"):
        (tmp_path / name).symlink_to(name)
    code = main(arguments)
    out, err = capsys.readouterr()
    assert (
        (code, out) == (2, "")
        and err.endswith("\n")
        and err.count("\n") == 1
        and "Traceback" not in err
    ), err
    assert is_clean(err[:-1]), ascii(err)


def test_a_bug_keeps_its_traceback_in_clean_lines(monkeypatch, capsys):
    def bug(*_):
        raise ValueError(STEERING)

    monkeypatch.setattr("ensync.runs.describe.describe", bug)
    assert main(["describe", "x"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and is_clean(err.replace("\n", "")) and r"\x1b[2J" in err


def test_a_removed_working_directory_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.startswith("the working directory cannot be used")


def test_a_link_that_leads_nowhere_is_told_as_one(tmp_path, monkeypatch, capsys):
    """And no name is proposed that was given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text('[data]\npath = "data.h5"\n[output]\ndirectory = "runs"\n')
    for name in ("x.toml", "x", "data.h5"):
        (tmp_path / name).symlink_to("far/away")
    for arguments in (["describe", "x.toml"], ["describe", "x"], ["describe", "a.toml"]):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert (
            ", a link to 'far/away' that leads nowhere; expected" in err
            and "did you mean" not in err
        ), err


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("NUMBA_NUM_THREADS", "0", "NUMBA_NUM_THREADS=0; expected a whole number"),
        ("NUMBA_NUM_THREADS", "two", "NUMBA_NUM_THREADS=two"),
        (
            "NUMBA_THREADING_LAYER",
            "a\nb",
            r"NUMBA_THREADING_LAYER=a\nb; expected one of default, omp",
        ),
    ],
)
def test_variables_that_numba_stumbles_over_are_refused(monkeypatch, variable, value, told):
    from ensync.kernels import threads

    monkeypatch.setenv(variable, value)
    with pytest.raises(EnsyncError) as caught:
        threads.prepare_environment()
    assert str(caught.value).startswith(told)


def test_numbers_of_the_environment_may_be_none():
    from ensync.core.resources import number
    from ensync.runs.slurm import minutes

    assert [number(text) for text in (None, "", "12", " 7\n", "abc", "1,2", "²", "-3")] == [
        0,
        0,
        12,
        7,
        0,
        0,
        0,
        0,
    ]
    for time in ("²", "1:٣", "-1", "1-", "1:2:3:4", "5\n"):
        with pytest.raises(EnsyncError):
            minutes(time)


def test_names_that_look_the_same_are_told_apart():
    composed, combined = "caf\u00e9", "cafe\u0301"
    assert nearest(combined, [composed, "cafes"]) == (
        f" (that is {ascii(combined)}, and {ascii(composed)} is there)"
    )
    assert nearest("cafe", ["cafes"]) == " (did you mean 'cafes'?)"
