"""Sums of gradients with fewer bytes: a module a way, and the choice among them.

A rank's vector x and what it kept back before, its error e, go into a sum; what it sends of them is
an approximation s, and e = x + e - s is what it keeps back next (error feedback, Seide et al. 2014;
Karimireddy et al. 2019). So nothing is lost for good: over any steps, the sums and the errors of
all ranks at their end add up to the gradients. All ranks get the same bits.

To add a way, write a Compressor, add it to `compressor_of`, and a row to
core.config.compression.COMPRESSIONS.
"""

from ensync.core.config.communication import Communication
from ensync.mpi.allreduce import Allreduce
from ensync.mpi.wire import Wire
from ensync.nn.network import Network
from ensync.nn.optimizers import Optimizer
from ensync.strategies.compression.compressor import Compressor
from ensync.strategies.compression.powersgd import PowerSgd
from ensync.strategies.compression.quantised import QuantisedSum
from ensync.strategies.compression.reducer import CompressedReducer
from ensync.strategies.compression.sparse import TopK, break_even
from ensync.strategies.compression.vector import ERROR, CompressedVector, Start
from ensync.strategies.compression.words import Bf16, Int8

__all__ = ["ERROR", "CompressedReducer", "CompressedVector", "compressed_message", "described"]


def compressed_message(
    communication: Communication,
    allreduce: Allreduce,
    network: Network,
    optimizer: Optimizer,
    seed: int,
) -> CompressedVector:
    """Return a vector for the message of a network whose gradient is compressed in sums."""
    start = Start(optimizer, communication.whole_before)
    return CompressedVector(
        allreduce, network, lambda wire: compressor_of(communication, wire, network, seed), start
    )


def compressor_of(settings: Communication, wire: Wire, network: Network, seed: int) -> Compressor:
    """Return what sums the gradients of a network as the settings say."""
    size = len(network.parameters)
    match settings.compression:
        case "powersgd":
            rank = settings.compression_rank
            return PowerSgd(wire, network.layout, network.dtype, rank, seed)
        case "int8":
            return QuantisedSum(wire, size, Int8(settings.compression_block))
        case "topk":
            return TopK(wire, size, settings.compression_share)
        case _:
            return QuantisedSum(wire, size, Bf16())


def described(settings: Communication) -> str:
    """Return the way to compress in words."""
    name = settings.compression
    later = f" after {settings.whole_before:.3g} of the steps" * (settings.whole_before > 0)
    match name:
        case "powersgd":
            return f"{name} of rank {settings.compression_rank}{later}"
        case "int8":
            return f"{name} in blocks of {settings.compression_block}"
        case "topk":
            share = settings.compression_share
            several = f"more than {most} ranks" if (most := break_even(share)) > 1 else "any ranks"
            less = f"{several} would send less as bf16"
            return f"{name} of {share:.3g} of the numbers{later} ({less})"
        case _:
            return name
