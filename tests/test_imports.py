"""The house rules about imports, read from the source: three libraries with one home each, and
floors that import downwards only.
"""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "ensync"
HOMES = {"numba": "kernels", "llvmlite": "kernels", "h5py": "storage", "mpi4py": "mpi"}

# Bottom to top; modules on one floor that are homes must not know each other.
FLOORS = [
    {"core"},
    {"kernels", "storage", "mpi"},
    {"nn"},
    {"training", "report"},
    {"strategies"},
    {"runs"},
    {"cli"},
    {"__main__"},
]


def imports(path: Path) -> set[str]:
    """Return the full dotted names that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(
                ["ensync", *path.relative_to(SOURCE).parts[:-1]][
                    : len(path.relative_to(SOURCE).parts) + 1 - node.level
                ]
            )
            module = node.module if node.level == 0 else ".".join(filter(None, [base, node.module]))
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def part(path: Path) -> str:
    """Return the module or package of ensync that a file belongs to."""
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def floor(name: str) -> int:
    """Return the floor of a part of ensync."""
    return next((number for number, names in enumerate(FLOORS) if name in names), -1)


FILES = sorted(SOURCE.rglob("*.py"))
PARTS = {part(path) for path in FILES} - {"__init__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_heavy_libraries_stay_in_their_homes(path):
    strangers = {
        name for name in imports(path) if HOMES.get(name.split(".")[0], part(path)) != part(path)
    }
    assert not strangers, (
        f"{path.relative_to(SOURCE)} imports {strangers}; each of {HOMES} is its library's only "
        "home"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_downwards(path):
    own = part(path)
    inside = {name.split(".")[1] for name in imports(path) if name.startswith("ensync.")} & PARTS
    allowed = (
        PARTS if own == "__init__" else {name for name in PARTS if floor(name) < floor(own)} | {own}
    )
    if own not in set(HOMES.values()):
        allowed |= FLOORS[floor(own)]
    assert inside <= allowed, f"{own} imports {inside - allowed}, which are not below it: {FLOORS}"


def test_every_part_has_a_floor():
    assert {name for name in PARTS if floor(name) < 0} == set()


def test_relative_and_absolute_imports_are_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    (tmp_path / "nn").mkdir()
    path = tmp_path / "nn" / "x.py"
    path.write_text(
        "from . import a\nfrom ..mpi import b\nimport numba.core\ndef f():\n    from h5py import "
        "File\n"
    )
    assert imports(path) == {"ensync.nn.a", "ensync.mpi.b", "numba.core", "h5py.File"}
