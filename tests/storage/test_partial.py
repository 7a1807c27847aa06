"""A preparation that was stopped at any moment goes on where it was, and ends with the bytes of one
that was not; what it was made from must be the same.
"""

import os
import shutil
from collections import Counter

import pytest
from samples import folder_members, prepare, tar, write_pictures

from ensync.cli.data import _left
from ensync.core.errors import EnsyncError
from ensync.storage import filling, partial
from ensync.storage.request import PrepareRequest
from ensync.storage.sources import images, picture_rows
from ensync.storage.sources.decoding import Decoded
from ensync.storage.sources.depth import Depth
from ensync.storage.sources.looking import SHAPE, Look
from ensync.storage.sources.streams import archive
from ensync.storage.sources.streams import pictures as stream

CLASSES, ROWS = ("cat", "dog", "owl"), 8
PICTURES = len(CLASSES) * ROWS
IMAGE = (8, 8, 3)
STOPS = {"looking": ("checking", 0.5), "writing": ("writing train", 0.4)}
STREAM_STOPS = STOPS | {"decoding": ("decoding", 0.6)}


class Stopped(BaseException):
    """Stands for whatever ends a program: no Exception, as a signal raises none."""


@pytest.fixture
def small_steps(monkeypatch):
    """Marks after each fourth picture, and two pictures at a time."""
    monkeypatch.setattr(partial, "EVERY", 4)
    monkeypatch.setattr(picture_rows, "TOGETHER", 2)
    monkeypatch.setattr(picture_rows, "AHEAD", 2)
    monkeypatch.setattr(stream, "TOGETHER", 2)
    monkeypatch.setattr(archive, "BUFFER", 512)
    monkeypatch.setattr(filling, "PIECE", 2 * 8 * 8 * 3)


@pytest.fixture
def decoded(monkeypatch):
    """How many pictures were decoded to each shape."""
    count = Counter()

    def counting(function):
        def decode(what, shape, how):
            count[tuple(shape)] += 1
            return function(what, shape, how)

        return decode

    for module, name in ((images, "decode"), (picture_rows, "decode"), (stream, "decode_stream")):
        monkeypatch.setattr(module, name, counting(getattr(module, name)))
    return count


@pytest.fixture
def given(tmp_path):
    """Return what makes the pictures of a source: a directory of folders, or an archive."""

    def make(name):
        write_pictures(tmp_path / "in" / "p", CLASSES, ROWS)
        if name == "images":
            return tmp_path / "in" / "p"
        (tmp_path / "in" / "a.tar").write_bytes(tar(folder_members(tmp_path / "in" / "p")))
        return tmp_path / "in" / "a.tar"

    return make


def place(tmp_path):
    """Return where the dataset of `tmp_path` is half written."""
    return partial.directory_of(tmp_path / "out" / "a.h5")


def stop(tmp_path, name, files, when, killed=False, **options):
    """Prepare up to a moment (words of the progress, share of it); killed: leave what a process
    that dies there leaves, with half a line behind it.
    """
    words, share = when

    def progress(what, done, total, unit=""):
        if what.startswith(words) and done >= share * total:
            if killed and place(tmp_path).is_dir():
                shutil.copytree(place(tmp_path), tmp_path / "as it was")
            raise Stopped

    with pytest.raises(Stopped):
        prepare(name, tmp_path / "out" / "a.h5", files, progress, size=8, **options)
    if killed:
        shutil.rmtree(place(tmp_path))
        shutil.move(tmp_path / "as it was", place(tmp_path))
        for file in ("looked", "written"):
            with (place(tmp_path) / file).open("ab") as half:
                half.write(b'["0123')


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize(
    ("name", "moment"),
    [*(("images", moment) for moment in STOPS), *(("tar", moment) for moment in STREAM_STOPS)],
)
def test_a_stopped_preparation_goes_on(tmp_path, small_steps, decoded, given, name, moment, killed):
    files = given(name)
    prepare(name, tmp_path / "whole.h5", files, size=8)
    every = dict(decoded)
    assert every == {SHAPE: PICTURES, IMAGE: PICTURES}
    stop(tmp_path, name, files, STREAM_STOPS[moment], killed)
    assert sorted(os.listdir(tmp_path / "out")) == [place(tmp_path).name]
    decoded.clear()
    prepare(name, tmp_path / "out" / "a.h5", files, size=8, jobs=3)
    assert (tmp_path / "out" / "a.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert os.listdir(tmp_path / "out") == ["a.h5"]
    looked, made = decoded[SHAPE], decoded[IMAGE]
    if moment == "looking":
        assert 0 < looked < PICTURES and made == PICTURES
    elif name == "tar" and moment == "writing":
        assert looked <= partial.EVERY * killed and made == 0
    else:
        assert looked <= partial.EVERY * killed and 0 < made < PICTURES


def test_a_preparation_may_be_killed_twice(tmp_path, small_steps, decoded, given):
    files = given("images")
    prepare("images", tmp_path / "whole.h5", files, size=8)
    for share in (0.4, 0.8):
        stop(tmp_path, "images", files, ("writing train", share), killed=True)
    decoded.clear()
    prepare("images", tmp_path / "out" / "a.h5", files, size=8)
    assert (tmp_path / "out" / "a.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert decoded[IMAGE] <= PICTURES - 12


def test_short_preparations_leave_nothing(tmp_path, given):
    files = given("images")
    stop(tmp_path, "images", files, STOPS["looking"])
    assert not (tmp_path / "out").exists()
    stop(tmp_path, "images", files, STOPS["writing"])
    assert os.listdir(tmp_path / "out") == []


def other_size(files):
    """Ask for another size."""
    return {"size": 9}


def other_pictures(files):
    """Add a picture."""
    shutil.copy(files / "cat" / "000.png", files / "cat" / "new.png")
    return {"size": 8}


def changed_picture(files):
    """Put another picture in place of one."""
    shutil.copy(files / "dog" / "000.png", files / "cat" / "000.png")
    return {"size": 8}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (other_size, "half written .* with --size 8, and not with 9; .*--restart"),
        (lambda files: {}, "with --size 8, which this command lacks"),
        (lambda files: {"size": 8, "seed": 2}, "without --seed, and not with 2"),
        (other_pictures, "from other pictures"),
        (changed_picture, "from pictures that have changed since"),
    ],
)
def test_another_preparation_is_refused_or_begun_anew(
    tmp_path, small_steps, given, change, sentence
):
    files = given("images")
    stop(tmp_path, "images", files, STOPS["writing"])
    options = change(files)
    with pytest.raises(EnsyncError, match=sentence):
        prepare("images", tmp_path / "out" / "a.h5", files, **options)
    assert place(tmp_path).is_dir()
    prepare("images", tmp_path / "out" / "a.h5", files, restart=True, **options)
    prepare("images", tmp_path / "b.h5", files, **options)
    assert (tmp_path / "out" / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert os.listdir(tmp_path / "out") == ["a.h5"]


def test_a_dataset_that_is_there_stays_until_the_other_is_whole(tmp_path, small_steps, given):
    files = given("images")
    prepare("images", tmp_path / "out" / "a.h5", files, size=5)
    before = (tmp_path / "out" / "a.h5").read_bytes()
    stop(tmp_path, "images", files, STOPS["writing"])
    assert (tmp_path / "out" / "a.h5").read_bytes() == before
    request = PrepareRequest("images", target=tmp_path / "out" / "a.h5")
    assert f"goes on from what is done, which is in {place(tmp_path)}" in _left(request)
    assert prepare("images", tmp_path / "out" / "a.h5", files, size=8).before is not None
    assert "nothing was written" in _left(request)


def test_broken_pictures_are_looked_at_again_and_the_others_are_not(
    tmp_path, small_steps, decoded, given
):
    files = given("images")
    for row in range(7):
        (files / "cat" / f"bad{row}.png").write_bytes(b"no")
    with pytest.raises(EnsyncError, match="7 of 31 pictures are bad"):
        prepare("images", tmp_path / "out" / "a.h5", files, size=8)
    decoded.clear()
    done = prepare("images", tmp_path / "out" / "a.h5", files, size=8, bad_rows="skip")
    assert decoded[SHAPE] == 7 and done.notes[0].startswith("7 of 31 pictures left out: cat/bad0")
    assert done.names == tmp_path / "out" / "a.left_out.txt"
    named = done.names.read_text().splitlines()
    assert named[0] == "# left out of a.h5" and len(named) == 8
    assert [line.split(" ")[0] for line in named[1:]] == [f"cat/bad{n}.png" for n in range(7)]
    for row in range(2):
        (files / "cat" / f"bad{row}.png").unlink()
    done = prepare("images", tmp_path / "out" / "a.h5", files, size=8, bad_rows="skip")
    assert done.names is None and os.listdir(tmp_path / "out") == ["a.h5"]


def test_two_processes_do_not_share_what_is_half_done(tmp_path, small_steps, given):
    files = given("images")
    stop(tmp_path, "images", files, STOPS["writing"])
    with partial.Partial(tmp_path / "out" / "a.h5"):
        prepare("images", tmp_path / "out" / "a.h5", files, size=8)
        assert place(tmp_path).is_dir()
    prepare("images", tmp_path / "b.h5", files, size=8)
    assert (tmp_path / "out" / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(
    "one",
    [
        Decoded(side=7),
        Decoded(transparent=True, side=9),
        Decoded(frames=True, depth=Depth(16, (0, 65_535), True, 4095.5, False, True), side=1),
    ],
)
def test_a_look_comes_back_as_it_was(tmp_path, one):
    look = Look(one, bytes(range(32)))
    with partial.Partial(tmp_path / "a.h5") as kept:
        for key in range(partial.EVERY):
            kept.note(2**64 - 1 - key, look.recorded())
    with partial.Partial(tmp_path / "a.h5") as kept:
        found = kept.known(2**64 - 5)
        assert found is not None and Look.of(found) == look
        assert kept.known(1) is None and kept.known(2**64 - 1 - partial.EVERY) is None
