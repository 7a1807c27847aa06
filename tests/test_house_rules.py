"""The house rules on sizes and types, read from the source: few entries at the top, few
parameters, no untyped dictionaries between modules, no long lines.
"""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ensync"
LONGEST_LINE = 100
MOST_ENTRIES = 12
MOST_PARAMETERS, MOST_OF_A_KERNEL = 6, 10
DATA = {".json"}  # files whose lines nobody reads

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST, prefix: str = "", inside: bool = False) -> Iterator[tuple]:
    """Yield (dotted name, function, whether it is public) of a module; functions inside others
    are theirs alone.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            own = node.name.startswith("_") and not node.name.startswith("__")
            yield f"{prefix}{node.name}", node, not (inside or own)
            yield from functions(node, f"{prefix}{node.name}.", True)
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.", inside or node.name[0] == "_")
        else:
            yield from functions(node, prefix, inside)


def parameters(function: Function) -> int:
    """Return how many parameters a function has, self and cls not counted."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args]
    bound = bool(named) and named[0].arg in ("self", "cls")
    several = [arguments.vararg, arguments.kwarg]
    return len(named) - bound + len(arguments.kwonlyargs) + sum(map(bool, several))


def untyped(function: Function) -> bool:
    """Return whether dict[str, Any] stands in the function's signature."""
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    written = [
        each.annotation
        for each in [*every, function.args.vararg, function.args.kwarg]
        if each is not None
    ] + [function.returns]
    return any("dict[str, Any]" in ast.unparse(each) for each in written if each is not None)


FUNCTIONS = {
    f"{path.relative_to(SOURCE)}: {name}": (path.relative_to(SOURCE).parts[0], function, public)
    for path in sorted(SOURCE.rglob("*.py"))
    for name, function, public in functions(ast.parse(path.read_text()))
}


def test_few_entries_at_the_top():
    entries = {path.name for path in SOURCE.iterdir()} - {"__pycache__", "py.typed"}
    assert len(entries) <= MOST_ENTRIES, entries


def test_functions_have_few_parameters():
    most = {"kernels": MOST_OF_A_KERNEL}
    many = {
        name: parameters(function)
        for name, (part, function, _) in FUNCTIONS.items()
        if parameters(function) > most.get(part, MOST_PARAMETERS)
    }
    assert many == {}


def test_public_signatures_have_types_of_their_own():
    loose = {
        name
        for name, (part, function, public) in FUNCTIONS.items()
        if public and part != "report" and untyped(function)
    }
    assert loose == set()


def test_lines_are_short():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout of git")
    long = [
        f"{name}:{number}"
        for name in filter(None, listed.stdout.split("\0"))
        if (ROOT / name).suffix not in DATA and (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text().splitlines(), start=1)
        if len(line) > LONGEST_LINE
    ]
    assert long == []


def test_tests_on_ranks_lie_where_they_are_looked_for():
    """`make test-mpi` reads the files test_mpi_*.py alone: each rank would import all others."""
    marked = {
        path.name
        for path in (ROOT / "tests").rglob("*.py")
        if "pytest.mark.mpi" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.mark.mpi"
    }
    assert marked and all(name.startswith("test_mpi_") for name in marked)
