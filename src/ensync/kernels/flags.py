"""An argument of kernels that is present or None, so that numba compiles one of two forms: it
prunes `if flag is None` for either.

For True it would compile both branches, since it only knows what None is not when the type says so.
"""

from numba import types
from numba.core.datamodel import models, register_default
from numba.extending import NativeValue, typeof_impl, unbox


class Flag:
    """The flag that is present; PRESENT is the only one."""


class FlagType(types.Opaque):
    """Its numba type. numba's dead branch pruning asks types for `literal_type`, and takes what
    has one for something else than None.
    """

    @property
    def literal_type(self) -> "FlagType":
        return self


FLAG_TYPE = FlagType("Flag")
PRESENT = Flag()
register_default(FlagType)(models.OpaqueModel)


@typeof_impl.register(Flag)
def _type_of(value, context):
    return FLAG_TYPE


@unbox(FlagType)
def _unbox(kind, value, context):
    return NativeValue(context.context.get_dummy_value())


def flag(present: bool | None) -> Flag | None:
    """Return the flag, or None."""
    return PRESENT if present else None
