"""Downloads, from a server on this machine: checksums are checked, nothing is fetched twice,
every failure has its sentence.
"""

import hashlib
import os
import resource
import signal
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from samples import prepare, write_idx

from ensync.core.errors import EnsyncError
from ensync.core.signals import Ended, ending_tidily
from ensync.storage import downloads
from ensync.storage.published import PUBLISHED


class Quiet(SimpleHTTPRequestHandler):
    """Serves a directory and counts what is asked for; of a file named in `fault` it gives half,
    nothing, or an error.
    """

    asked: list[str] = []
    fault: dict[str, str] = {}

    def do_GET(self):
        Quiet.asked.append(self.path)
        fault = Quiet.fault.get(self.path.lstrip("/"))
        if fault is None:
            super().do_GET()
        elif fault == "half":
            data = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
        elif fault == "nothing":
            time.sleep(0.6)
        else:
            self.send_error(int(fault))

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A mirror of a small MNIST whose checksums are the published ones for this test; yields
    (directory, address).
    """
    directory = tmp_path / "mirror"
    write_idx(directory)
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in directory.iterdir()}
    monkeypatch.setitem(PUBLISHED["mnist"].__dict__, "files", sums)
    monkeypatch.setattr(downloads, "TRIES", 0)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    Quiet.asked, Quiet.fault = [], {}
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=directory)) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield directory, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def test_files_are_fetched_once_and_prepared(server, tmp_path, monkeypatch):
    _directory, url = server
    monkeypatch.setitem(PUBLISHED["mnist"].__dict__, "url", url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seen = []
    done = prepare(
        "mnist", tmp_path / "m.h5", download=True, progress=lambda *step: seen.append(step)
    )
    assert (
        done.changed
        and [note for note in done.notes if "validation images" not in note] == []
        and len(Quiet.asked) == 4
    )
    _name, last, total, unit = [
        step for step in seen if step[0].startswith("fetching t10k-labels")
    ][-1]
    assert last == total > 0 and unit == "B"
    assert not prepare("mnist", tmp_path / "m.h5", download=True).changed and len(Quiet.asked) == 4
    assert len(list((tmp_path / "cache" / "ensync" / "downloads" / "mnist").iterdir())) == 4


def test_a_wrong_checksum_is_refused_and_nothing_stays(server, tmp_path):
    directory, url = server
    (directory / "t10k-images-idx3-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(
        EnsyncError, match="t10k-images-idx3-ubyte.gz does not have the published MD5"
    ):
        downloads.fetch("mnist", tmp_path / "kept", url=url)
    assert not (tmp_path / "kept" / "t10k-images-idx3-ubyte.gz").exists()
    assert not [path for path in (tmp_path / "kept").iterdir() if path.name.startswith("tmp")]


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    _directory, url = server
    place = downloads.fetch("mnist", tmp_path / "kept", url=url)
    (place / "train-labels-idx1-ubyte.gz").write_bytes(b"flipped")
    downloads.fetch("mnist", tmp_path / "kept", url=url)
    assert Quiet.asked[4:] == ["/train-labels-idx1-ubyte.gz"]


def test_a_missing_file_or_server_has_its_sentence(server, tmp_path):
    directory, url = server
    (directory / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(EnsyncError, match="train-images-idx3-ubyte.gz cannot be fetched .404"):
        downloads.fetch("mnist", tmp_path / "kept", url=url)
    with pytest.raises(
        EnsyncError,
        match="cannot be fetched .*copy train-images-idx3-ubyte.gz by hand and give its "
        "directory with --from",
    ):
        downloads.fetch("mnist", tmp_path / "kept", url="http://127.0.0.1:9/")


FAULTS = {
    "half": "cannot be fetched (the connection broke off); expected an answer",
    "nothing": "cannot be fetched (no answer within 0.2 s); expected an answer",
    "503": "cannot be fetched (503 Service Unavailable); expected an answer",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_server_does_is_told_in_words_and_half_a_file_never_counts(
    server, tmp_path, monkeypatch, fault
):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    Quiet.fault = {"t10k-images-idx3-ubyte.gz": fault}
    with pytest.raises(EnsyncError) as caught:
        downloads.fetch("mnist", tmp_path / "kept", url=server[1])
    check_words(str(caught.value), FAULTS[fault])
    assert f"a login node (the files stay in {tmp_path / 'kept'})" in str(caught.value)
    whole = {path.name for path in server[0].iterdir()} - Quiet.fault.keys()
    assert {path.name for path in (tmp_path / "kept").iterdir()} <= whole
    Quiet.fault = {}
    assert len(list(downloads.fetch("mnist", tmp_path / "kept", url=server[1]).iterdir())) == 4


@pytest.mark.parametrize(
    ("url", "proxy", "sentence"),
    [
        ("http://nowhere.invalid/", None, "(the name of the server cannot be resolved"),
        ("http://127.0.0.1:9/", None, "(the connection was refused)"),
        (
            "http://127.0.0.1/",
            "http://127.0.0.1:9",
            "(the proxy of http_proxy or https_proxy does not connect)",
        ),
        (
            "http://127.0.0.1/",
            "http:///",
            "(http_proxy or https_proxy is not the address of a proxy)",
        ),
    ],
)
def test_what_keeps_from_a_server_is_told_in_words(
    server, tmp_path, monkeypatch, url, proxy, sentence
):
    if proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
    with pytest.raises(EnsyncError) as caught:
        downloads.fetch("mnist", tmp_path / "kept", url=url)
    check_words(str(caught.value), sentence)


def check_words(text, sentence):
    """Check that a sentence says something, and shows nothing of what a library holds."""
    assert sentence in text and text.count("; ") == 2
    for word in ("Pool", "urllib", "object at", "Error", "0x", "Errno", "retries", "\n"):
        assert word not in text


def test_a_signal_leaves_no_part_of_a_file(server, tmp_path):
    def progress(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Ended), ending_tidily():
        downloads.fetch("mnist", tmp_path / "kept", progress, server[1])
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(server, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (60, before[1])
    )  # bytes of a file, less than any of these
    try:
        with pytest.raises(EnsyncError) as caught:
            downloads.fetch("mnist", tmp_path / "kept", url=server[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    check_words(str(caught.value), "cannot be written because the file system or a limit")
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_directory_that_cannot_be_written_has_its_sentence(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnsyncError, match="cannot be written because"):
        downloads.fetch("mnist", tmp_path / "file" / "kept", url=server[1])
