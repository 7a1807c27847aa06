"""What is told at the end of a job is waited for, but not for ever."""

import os
import threading
import time

import pytest

from ensync.core.streams import wait_until_read


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_pipe_is_waited_for_until_its_reader_has_taken_all(pipe):
    reader, writer = pipe
    os.write(writer, b"a reason\n")

    def read():
        time.sleep(0.2)
        for _ in range(9):
            os.read(reader, 1)
            time.sleep(0.01)

    thread = threading.Thread(target=read)
    thread.start()
    wait_until_read(writer, 30)
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    thread.join()


def test_a_pipe_that_nobody_reads_is_left_after_the_limit(pipe):
    os.write(pipe[1], b"a reason\n")
    wait_until_read(pipe[1], 0.05)
    assert os.read(pipe[0], 100) == b"a reason\n"


def test_a_file_or_a_closed_descriptor_is_not_waited_for(tmp_path):
    with open(tmp_path / "log", "wb", buffering=0) as log:
        log.write(b"a reason\n")
        log.seek(0)  # nine bytes could be read
        wait_until_read(log.fileno(), 1e9)
        descriptor = os.dup(log.fileno())
    os.close(descriptor)
    wait_until_read(descriptor, 1e9)
