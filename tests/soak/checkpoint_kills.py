"""Kill -9 a process that saves checkpoints, at random moments, and check after each death what it
left.

    python tests/soak/checkpoint_kills.py 200 [--directory DIR] [--seed N] [--megabytes N]

After every kill: the newest checkpoint verifies and holds what was saved, no acknowledged one is
lost, none is damaged, and once the next writer has cleaned up no temporary stays. Two kills of
three wait for a temporary to appear, to strike in the middle of a write; there are at least as many
kills as asked for, and half of that number in the middle of a write. Prints the counts; exit code 1
with the reason at the first violation.
"""

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

from ensync.storage.checkpoint import (
    checkpoint_name,
    clean_temporaries,
    load_checkpoint,
    newest_valid,
    prune,
    save_checkpoint,
)

KEEP = 3


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(options.directory or scratch)
        directory.mkdir(parents=True, exist_ok=True)
        return soak(
            directory, options.kills, random.Random(options.seed), options.megabytes * 2**18
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", type=int)
    parser.add_argument("--directory", help="where to save; a temporary one by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--megabytes", type=int, default=4, help="size of one checkpoint")
    return parser.parse_args()


def soak(directory: Path, kills: int, choose: random.Random, size: int) -> int:
    began, in_write, acknowledged, kill = time.monotonic(), 0, 0, 0
    while kill < kills or in_write < kills // 2:
        kill += 1
        reported = one_life(directory, size, aimed=kill % 3 != 0, choose=choose)
        acknowledged = reported or acknowledged
        in_write += any(directory.glob(".*.tmp"))
        wrong = violation(directory, acknowledged, size)
        if wrong:
            print(f"after kill {kill}: {wrong}", file=sys.stderr)
            return 1
    seconds = time.monotonic() - began
    print(
        f"{kill} kills survived ({in_write} in the middle of a write), {acknowledged} "
        f"checkpoints acknowledged, none lost, {seconds:.1f} s"
    )
    return 0


def one_life(directory: Path, size: int, aimed: bool, choose: random.Random) -> int:
    """Let a process save until it is killed; return the last step that it reported as saved, 0
    if none.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        save_for_ever(directory, size, writer)
    os.close(writer)
    time.sleep(choose.uniform(0, 0.2))
    while aimed and not any(directory.glob(".*.tmp")) and running(child):
        pass
    time.sleep(choose.uniform(0, 0.003))
    os.kill(child, signal.SIGKILL)
    if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        sys.exit("the writer stopped by itself, its traceback is above")
    with open(reader) as lines:
        return max((int(line) for line in lines if line.endswith("\n")), default=0)


def running(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def save_for_ever(directory: Path, size: int, writer: int) -> None:
    """Resume from the newest valid checkpoint and save step after step, reporting each one."""
    try:
        prune(directory, KEEP)
        newest, _ = newest_valid(directory)
        start = load_checkpoint(newest)[0]["step"] if newest else 0
        for step in itertools.count(start + 1):
            save_checkpoint(
                directory / checkpoint_name(step // 10, step), {"step": step}, state(step, size)
            )
            os.write(writer, b"%d\n" % step)
            prune(directory, KEEP)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def state(step: int, size: int) -> dict[str, np.ndarray]:
    return {"parameters": np.full(size, step, np.float32)}


def violation(directory: Path, acknowledged: int, size: int) -> str | None:
    """Return what is wrong with the directory after a kill, None when nothing is."""
    newest, rejected = newest_valid(directory)
    if rejected:
        return f"damaged: {rejected}"
    if newest is None:
        return f"no checkpoint, {acknowledged} were acknowledged" if acknowledged else None
    attributes, arrays = load_checkpoint(newest)
    if not acknowledged <= attributes["step"] or not np.array_equal(
        arrays["parameters"], state(attributes["step"], size)["parameters"]
    ):
        return f"{newest} holds step {attributes['step']}, {acknowledged} was acknowledged"
    clean_temporaries(directory)
    left = sorted(path.name for path in directory.iterdir())
    unexpected = [name for name in left if not name.startswith("checkpoint-")]
    return f"left behind: {left}" if unexpected or len(left) > KEEP + 1 else None


if __name__ == "__main__":
    sys.exit(main())
