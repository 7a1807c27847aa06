"""Read CIFAR-10's python batches without unpickling: an interpreter of the opcodes they use, which
never runs anything.

A pickle is a program for a stack machine, and pickle.load would run a hostile one. Here no name is
imported and nothing is built but dicts, lists, tuples, strings, numbers and one array of bytes;
NumPy's three names become the inert markers below.
"""

import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

OPCODES = 100_000  # a published batch has 29,817; many more are a file that wants to keep us busy
VALUES = frozenset("SHORT_BINSTRING BINSTRING BININT1 BININT2 BININT".split())
CONSTANTS = {"NONE": None, "NEWFALSE": False}
IGNORED = frozenset("PROTO BINPUT LONG_BINPUT".split())  # a batch never reads its memo
RECONSTRUCT, NDARRAY, DTYPE = object(), object(), object()
NAMES = {
    "numpy.core.multiarray _reconstruct": RECONSTRUCT,
    "numpy ndarray": NDARRAY,
    "numpy dtype": DTYPE,
}


class _Array:
    """Stands for a numpy.ndarray; its state is (version, shape, dtype, fortran order, bytes as
    latin-1 text).
    """

    state: tuple[Any, ...] = ()

    def array(self) -> np.ndarray:
        """Return the array uint8 that the state describes. Errors: ValueError when it describes
        another.
        """
        _version, shape, dtype, fortran, text = self.state
        if not isinstance(dtype, _Dtype) or dtype.name != "u1" or fortran is not False:
            raise ValueError("an array that is not of bytes in C order")
        return np.frombuffer(_expect(text, str).encode("latin-1"), np.uint8).reshape(
            _expect(shape, tuple)
        )


class _Dtype:
    """Stands for numpy.dtype(name, ...); its state says nothing for a type of one byte."""

    state: tuple[Any, ...] = ()

    def __init__(self, name: Any) -> None:
        self.name = name


def read_plain_pickle(data: bytes) -> dict[str, object]:
    """Return the dict that a pickle like CIFAR-10's describes; arrays are uint8.

    Errors: ValueError, or IndexError and the like where the stack does not add up, for anything
    else.
    """
    machine = _Machine()
    for count, (opcode, argument, _position) in enumerate(pickletools.genops(data)):
        if count > OPCODES:
            raise ValueError(f"more than {OPCODES} opcodes")
        if opcode.name != "STOP":
            machine.run(opcode.name, argument)
    (result,) = machine.stack
    return {
        key: value.array() if isinstance(value, _Array) else value
        for key, value in _expect(result, dict).items()
    }


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.actions: dict[str, Callable[[], None]] = {
            "MARK": lambda: self.marks.append(len(self.stack)),
            "EMPTY_DICT": lambda: self.stack.append({}),
            "EMPTY_LIST": lambda: self.stack.append([]),
            "TUPLE": lambda: self.stack.append(tuple(self.above_mark())),
            "TUPLE1": lambda: self.tuple(1),
            "TUPLE2": lambda: self.tuple(2),
            "TUPLE3": lambda: self.tuple(3),
            "APPENDS": self.appends,
            "SETITEMS": self.setitems,
            "REDUCE": self.reduce,
            "BUILD": self.build,
        }

    def run(self, name: str, argument: Any) -> None:
        """Carry out one opcode. Errors: ValueError when a batch has no use for it."""
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name == "GLOBAL" and argument in NAMES:
            self.stack.append(NAMES[argument])
        elif name in self.actions:
            self.actions[name]()
        elif name not in IGNORED:
            raise ValueError(f"{name} {str(argument)[:60]!r}, which these files have no use for")

    def above_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def tuple(self, size: int) -> None:
        self.stack[-size:] = [tuple(self.stack[-size:])]

    def appends(self) -> None:
        values = self.above_mark()
        _expect(self.stack[-1], list).extend(values)

    def setitems(self) -> None:
        values = self.above_mark()
        target = _expect(self.stack[-1], dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_expect(key, str)] = value

    def reduce(self) -> None:
        arguments, callee = _expect(self.stack.pop(), tuple), self.stack.pop()
        if callee is not RECONSTRUCT and callee is not DTYPE:
            raise ValueError("a call of something else than NumPy's array")
        self.stack.append(_Array() if callee is RECONSTRUCT else _Dtype(arguments[0]))

    def build(self) -> None:
        state = _expect(self.stack.pop(), tuple)
        _expect(self.stack[-1], _Array | _Dtype).state = state


def _expect(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} out of place")
    return value
