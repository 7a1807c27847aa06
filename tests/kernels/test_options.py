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


def overloaded(tree):
    """The functions that have another form in compiled code (@overload)."""
    names = {
        decorator.args[0].id
        for node in tree.body
        if is_compiled(node, "overload")
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call)  # typing.overload has none
    }
    return [node for node in tree.body if getattr(node, "name", "") in names]


def plain_nodes(tree, other=()):
    """The nodes outside compiled functions, and of those that numba makes or replaces."""
    for node in ast.iter_child_nodes(tree):
        if not (is_compiled(node) or is_compiled(node, "overload") or node in other):
            yield node
            yield from plain_nodes(node, other)


def inner_functions(path):
    """The names of the functions of a file that cannot be called from Python, and of those that
    are overloaded and call one of these.
    """
    tree = ast.parse(path.read_text())
    inner = {node.name for node in ast.walk(tree) if is_compiled(node, "INNER")}
    for node in overloaded(tree):
        if inner & {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}:
            inner.add(node.name)
    return inner


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
    for node in plain_nodes(tree, overloaded(tree)):
        if isinstance(node, ast.Name) and node.id in functions:
            yield functions[node.id]
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        ):
            yield modules[node.value.id], node.attr


def test_python_calls_no_inner_function():
    inner = {(path.stem, name) for path in KERNELS.rglob("*.py") for name in inner_functions(path)}
    used = {
        (*name, str(path.relative_to(PROJECT)))
        for folder in ("src", "tests")
        for path in (PROJECT / folder).rglob("*.py")
        for name in names_used(path)
    }
    assert len(inner) > 50 and len(used) > 50
    assert not {name for name in used if name[:2] in inner}
