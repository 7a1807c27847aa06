"""An argument of kernels that is present or None, so that numba compiles one of two forms: it
prunes `if flag is None` for either.

For True it would compile both branches, since it only knows what None is not when the type says so.
Flags of other names have types of their own, and so compiled forms of their own.
"""

from numba import types
from numba.core.datamodel import models, register_default
from numba.extending import NativeValue, typeof_impl, unbox


class FlagType(types.Opaque):
    """The numba type of a flag. numba's dead branch pruning asks types for `literal_type`, and
    takes what has one for something else than None.
    """

    @property
    def literal_type(self) -> "FlagType":
        return self


class Flag:
    """A flag that is present; type: its numba type."""

    def __init__(self, name: str) -> None:
        self.type = FlagType(name)


PRESENT = Flag("Flag")
register_default(FlagType)(models.OpaqueModel)


@typeof_impl.register(Flag)
def _type_of(value, context):
    return value.type


@unbox(FlagType)
def _unbox(kind, value, context):
    return NativeValue(context.context.get_dummy_value())


def flag(present: bool | None) -> Flag | None:
    """Return the flag, or None."""
    return PRESENT if present else None
