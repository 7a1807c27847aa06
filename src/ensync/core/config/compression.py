"""The ways to send fewer bytes in the sum of a gradient, each described once. What they do is in
strategies.compression.
"""

from dataclasses import dataclass

NONE = "none"


@dataclass(frozen=True, slots=True)
class CompressionSpec:
    """A way to compress, and what settings, help and refusals know of it.

    settings: those of [communication] that it has.
    """

    help: str
    settings: tuple[str, ...] = ()


COMPRESSIONS = {
    NONE: CompressionSpec("every digit"),
    "bf16": CompressionSpec("16 of the 32 bits of each number"),
    "powersgd": CompressionSpec(
        "a factorisation of low rank of each matrix (Vogels et al. 2019)",
        ("compression_rank", "compression_start"),
    ),
    "int8": CompressionSpec(
        "8 bits for each number and a scale for a block", ("compression_block",)
    ),
    "topk": CompressionSpec(
        "the numbers that are largest in size, with their places",
        ("compression_share", "compression_start"),
    ),
}
