"""The form of vectors on this host: AVX-512, AVX2, NEON or plain; and whether it has matrix tiles.

The environment variable ENSYNC_SIMD forces one of the forms of vectors, without matrix tiles.
"""

import ctypes
import os
import sys

import llvmlite.binding

from ensync.core.errors import EnsyncError

# Bytes of a vector.
VECTOR_BYTES = {"avx512": 64, "avx2": 32, "neon": 16, "plain": 16}

# Rows and vectors of the tile for wide results: it fills the registers (32, 16, 32, 16 of them)
# with sums.
WIDE_TILE = {"avx512": (8, 3), "avx2": (4, 3), "neon": (8, 3), "plain": (4, 2)}

# Rows of the tile of one vector, for narrow results and remainders: a multiple of the wide tile's
# rows.
NARROW_ROWS = {"avx512": 16, "avx2": 8, "neon": 16, "plain": 8}

CACHE_LINE = 64  # bytes, of nearly all processors


def architecture() -> str:
    """Return the processor's family as LLVM names it, "x86_64" or "aarch64" for instance."""
    family = llvmlite.binding.get_process_triple().split("-")[0]
    return "aarch64" if family == "arm64" else family


def detect() -> str:
    """Return the widest form this host executes: "avx512", "avx2", "neon" or "plain"."""
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512vl") and features.get("avx512dq"):
        return "avx512"
    if features.get("avx2") and features.get("fma"):
        return "avx2"
    return "neon" if architecture() == "aarch64" else "plain"


def choose(forced: str | None) -> str:
    """Return the form to compile for: `forced` when given, else what the host has.

    Raises EnsyncError when `forced` is not a form. A form the host lacks still computes correctly:
    LLVM splits its vectors.
    """
    if forced and forced not in VECTOR_BYTES:
        raise EnsyncError(
            f"ENSYNC_SIMD={forced}",
            f"one of {', '.join(VECTOR_BYTES)}",
            "unset it or choose one of them",
        )
    return forced or detect()


SIMD = choose(os.environ.get("ENSYNC_SIMD"))


def bf16_missing() -> str:
    """Return why products of bf16 numbers cannot be computed here, nothing where they can.

    Only AVX512-BF16 is written, 32 products and 16 sums to an instruction: twice the rate of
    float32 on AMD Zen 4 and 5; and AMX, where there is it (`AMX`).
    """
    if SIMD != "avx512":
        return f"this process computes with {SIMD} vectors"
    return (
        ""
        if llvmlite.binding.get_host_cpu_features().get("avx512bf16")
        else "this CPU has no AVX512-BF16 instructions"
    )


# Of Linux on x86-64: the system call arch_prctl, its request for a part of the processor's state,
# and the part that the tiles are.
ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18


def tiles_granted(features: dict[str, bool]) -> bool:
    """Ask the system for the matrix tiles of AMX, 16 times 16 sums of products of bf16 numbers to
    an instruction; return whether this process may use them.

    features: of the processor. Linux gives them to a process that asks (5.16 and later), since a
    thread that uses them has 8 KiB more to save; threads started later have them too.
    """
    if not (sys.platform == "linux" and features.get("amx-tile") and features.get("amx-bf16")):
        return False
    try:
        system_call = ctypes.CDLL(None).syscall
    except (OSError, AttributeError):
        return False
    return system_call(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0


AMX = (
    not os.environ.get("ENSYNC_SIMD")
    and not bf16_missing()
    and tiles_granted(llvmlite.binding.get_host_cpu_features())
)


def description() -> str:
    """Return the form of vectors in words, with matrix tiles where they are used."""
    return SIMD + " vectors" + (" and AMX tiles" if AMX else "")


def lanes_of(itemsize: int, simd: str = SIMD) -> int:
    """Return how many elements of `itemsize` bytes a vector holds."""
    return VECTOR_BYTES[simd] // itemsize
