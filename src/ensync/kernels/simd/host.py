"""The form of vectors on this host: AVX-512, AVX2, NEON or plain.

The environment variable ENSYNC_SIMD forces one of them.
"""

import os

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

    Only AVX512-BF16 is written: 32 products and 16 sums to an instruction, twice the rate of
    float32 on AMD Zen 4 and 5.
    """
    if SIMD != "avx512":
        return f"this process computes with {SIMD} vectors"
    return (
        ""
        if llvmlite.binding.get_host_cpu_features().get("avx512bf16")
        else "this CPU has no AVX512-BF16 instructions"
    )


def lanes_of(itemsize: int, simd: str = SIMD) -> int:
    """Return how many elements of `itemsize` bytes a vector holds."""
    return VECTOR_BYTES[simd] // itemsize
