"""An argument of kernels that is present or None, so that numba compiles one of two forms: it
prunes `if flag is None` for either.

For True it would compile both branches, since it only knows what None is not when the type says so.
Flags of other names have types of their own, and so compiled forms of their own.
"""

from numba import types
from numba.core.datamodel import models, register_default
from numba.extending import NativeValue, unbox


class FlagType(types.Opaque):
    """The numba type of a flag. numba's dead branch pruning asks types for `literal_type`, and
    takes what has one for something else than None.
    """

    @property
    def literal_type(self) -> "FlagType":
        return self


class Flag:
    """A flag that is present; type: its numba type, which numba asks for at each call by the other
    name: registered as objects of other classes are, it would take a microsecond longer.
    """

    def __init__(self, name: str) -> None:
        self.type = self._numba_type_ = FlagType(name)


PRESENT = Flag("Flag")
register_default(FlagType)(models.OpaqueModel)


@unbox(FlagType)
def _unbox(kind, value, context):
    return NativeValue(context.context.get_dummy_value())


def flag(present: bool | None) -> Flag | None:
    """Return the flag, or None."""
    return PRESENT if present else None
