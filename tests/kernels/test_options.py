"""Functions compiled without a way in from Python are never called from there: it would end the
process.
"""

import ast
from pathlib import Path

PROJECT = Path(__file__).parents[2]
KERNELS = PROJECT / "src" / "ensync" / "kernels"
MODULES = {
    ".".join(path.relative_to(PROJECT / "src").with_suffix("").parts)
    for path in KERNELS.rglob("*.py")
}


def is_compiled(node, name="njit"):
    """Whether a function has a decorator with this word in it."""
    return isinstance(node, ast.FunctionDef) and any(
        name in ast.unparse(decorator) for decorator in node.decorator_list
    )


def plain_nodes(tree):
    """The nodes outside compiled functions."""
    for node in ast.iter_child_nodes(tree):
        if not is_compiled(node):
            yield node
            yield from plain_nodes(node)


def names_used(path):
    """(module, function) of all kernels that a file names in plain Python: its own, imported
    ones, and attributes of imported modules.
    """
    tree, functions, modules = ast.parse(path.read_text()), {}, {}
    if KERNELS in path.parents:
        functions = {
            node.name: (path.stem, node.name)
            for node in tree.body
            if isinstance(node, ast.FunctionDef)
        }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name, module = alias.asname or alias.name, f"{node.module}.{alias.name}"
                if module in MODULES:
                    modules[name] = alias.name
                elif node.module in MODULES:
                    functions[name] = (node.module.split(".")[-1], alias.name)
    for node in plain_nodes(tree):
        if isinstance(node, ast.Name) and node.id in functions:
            yield functions[node.id]
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        ):
            yield modules[node.value.id], node.attr


def test_python_calls_no_inner_function():
    inner = {
        (path.stem, node.name)
        for path in KERNELS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if is_compiled(node, "INNER")
    }
    used = {
        (*name, str(path.relative_to(PROJECT)))
        for folder in ("src", "tests")
        for path in (PROJECT / folder).rglob("*.py")
        for name in names_used(path)
    }
    assert len(inner) > 50 and len(used) > 50
    assert not {name for name in used if name[:2] in inner}
