"""What the files of a study say, without what a clock tells."""

import json

SECONDS = ("seconds", "created", "machine", "seconds_to_target", "note", "bytes_sent", "packed")


def cells_in(directory):
    """Return the results of all cells by name."""
    found = {}
    for path in sorted((directory / "cells").glob("*/ranks_*/*/cell.json")):
        values = json.loads(path.read_bytes())
        values["job"].pop("output")
        name = str(path.parent.relative_to(directory / "cells"))
        found[name] = {k: v for k, v in values.items() if k not in SECONDS}
    return found


def results_in(directory):
    """Return all numbers of a study: results, and bytes of the outputs."""
    bytes_of = {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.glob("cells/*/*/*/outputs.h5"))
    }
    return cells_in(directory), bytes_of
