"""Many command lines within one start: python commands.py LIST, a JSON list of [name, [argument,
..., directory]]; each rank writes LIST.rankN.

The record of a command is {"code": exit code, "out": ..., "err": ...}, as this rank alone has them.
Importing Ensync once per start, and not once per command, makes a test of fifty mistakes one of
seconds.
"""

import json
import os
import sys
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout

from ensync.core import garbage

if __name__ == "__main__":
    garbage.look_seldom()  # as the program does
from ensync.cli.main import main
from ensync.mpi.world import world


def captured(arguments):
    """Run one command line; return its exit code and what this process wrote, by whatever way,
    on the two streams.
    """
    files = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
    sys.stdout.flush(), sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    for number, file in enumerate(files, 1):
        os.dup2(file.fileno(), number)
    try:
        code = main(arguments)
    except SystemExit as leave:
        code = leave.code
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        for number, old in enumerate(kept, 1):
            os.dup2(old, number)
            os.close(old)
    for file in files:
        file.seek(0)
    return {"code": code, "out": files[0].read().decode(), "err": files[1].read().decode()}


def here(directory, *arguments):
    """Run one command line in a directory, in the process of a test, whose own streams are
    pytest's; return its record.
    """
    with (
        chdir(directory),
        redirect_stdout(open(1, "w", closefd=False)),
        redirect_stderr(open(2, "w", closefd=False)),
    ):
        return captured(list(arguments))


if __name__ == "__main__":
    comm, records, listed = world(), {}, os.path.abspath(sys.argv[1])
    with open(listed) as file:
        commands = json.load(file)
    for name, arguments, directory in commands:
        os.chdir(directory)
        records[name] = captured(arguments)
        with open(f"{listed}.rank{comm.rank}", "w") as file:
            json.dump(records, file)
