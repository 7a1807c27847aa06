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
from ensync.nn.network import Network
from ensync.strategies.compression.compressor import Compressor
from ensync.strategies.compression.quantised import QuantisedSum
from ensync.strategies.compression.reducer import CompressedReducer
from ensync.strategies.compression.vector import ERROR, CompressedVector
from ensync.strategies.compression.words import Bf16

__all__ = ["ERROR", "CompressedReducer", "CompressedVector", "compressed_message"]


def compressed_message(
    communication: Communication, allreduce: Allreduce, network: Network
) -> CompressedVector:
    """Return a vector for the message of a network whose gradient is compressed in sums."""
    return CompressedVector(allreduce, network, compressor_of(communication, allreduce, network))


def compressor_of(
    communication: Communication, allreduce: Allreduce, network: Network
) -> Compressor:
    """Return what sums the gradients of a network as the settings say."""
    return QuantisedSum(allreduce.wire(), len(network.parameters), Bf16())
