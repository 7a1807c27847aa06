"""What the ranks of other nodes do, asked of them by TCP at the rare moment when a watchdog must
know.

MPI cannot be asked: the thread that would answer shares it with a rank that may be waiting inside
it. Every rank listens on a port that the system chooses and answers who knows the job's token,
which travelled by MPI. On one node there is no port.
"""

import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass

from ensync.mpi.notes import SILENT, Note
from ensync.mpi.world import Comm

_PATIENCE = 1.5  # seconds for one connection
_TRIED = 3  # ranks of a node that are asked before it counts as silent
_TOGETHER = 32  # nodes asked at the same time


@dataclass(frozen=True)
class Peer:
    """A rank: where it answers, and what is known of it anyway."""

    rank: int
    node: str
    process: int
    first: int  # lowest rank of its node
    addresses: list[str]
    port: int


class Inquiry:
    """Answers for this rank's node and asks the others. Collective to make; `answer` returns the
    notes of this node's ranks.
    """

    def __init__(
        self, comm: Comm, first: int, node: str, process: int, answer: Callable[[], list[Note]]
    ) -> None:
        self._answer, self._server = answer, None
        self._token = comm.bcast(secrets.token_hex(16) if comm.rank == 0 else None)
        self._first, self._others = first, []
        several = len(set(comm.allgather(first))) > 1
        if several:
            self._server = _listen()
            threading.Thread(target=self._serve, daemon=True, name="watchdog answers").start()
        port = self._server.getsockname()[1] if self._server else 0
        peers = comm.allgather(
            Peer(comm.rank, node, process, first, _addresses() if several else [], port)
        )
        for leader in dict.fromkeys(peer.first for peer in peers if peer.first != first):
            self._others.append([peer for peer in peers if peer.first == leader])
        self.works = all(comm.allgather(self._reaches_next() if comm.rank == first else True))

    def _reaches_next(self) -> bool:
        """Return whether the node after this one answers."""
        if not self._others:
            return True
        after = min(self._others, key=lambda peers: (peers[0].first < self._first, peers[0].first))
        return all(note.state != SILENT for note in self._ask(after))

    def ask(self) -> list[Note]:
        """Return the notes of the ranks of all other nodes."""
        if not self._others:
            return []
        with ThreadPoolExecutor(min(_TOGETHER, len(self._others))) as pool:
            return [note for notes in pool.map(self._ask, self._others) for note in notes]

    def _ask(self, peers: list[Peer]) -> list[Note]:
        """Return the notes of one node, made up as SILENT when none of its first ranks answers."""
        for peer in peers[:_TRIED]:
            for address in peer.addresses:
                with (
                    suppress(OSError, ValueError, TypeError),
                    socket.create_connection((address, peer.port), _PATIENCE) as connection,
                ):
                    connection.settimeout(_PATIENCE)
                    connection.sendall(self._token.encode() + b"\n")
                    notes = [
                        Note(**values) for values in json.loads(b"".join(_received(connection)))
                    ]
                    if {note.rank for note in notes} == {
                        other.rank for other in peers
                    }:  # another node may have the same address
                        return notes
        return [Note(peer.rank, peer.node, peer.process, 0, 0, 0.0, SILENT) for peer in peers]

    def _serve(self) -> None:
        assert self._server is not None
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # closed
            with suppress(OSError), connection:
                connection.settimeout(_PATIENCE)
                if secrets.compare_digest(connection.recv(64).strip(), self._token.encode()):
                    connection.sendall(
                        json.dumps([asdict(note) for note in self._answer()]).encode()
                    )

    def close(self) -> None:
        """Answer no more."""
        self._answer = list  # without the watchdog and its files, which hold this
        if self._server is not None:
            with suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)  # ends the accept
            self._server.close()


def _listen() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _received(connection: socket.socket) -> Iterator[bytes]:
    while piece := connection.recv(1 << 16):
        yield piece


def _addresses() -> list[str]:
    """Return the names and numbers under which other nodes may reach this one, the likeliest
    first.
    """
    found = [socket.gethostname()]
    with suppress(ImportError, OSError):
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            for _, name in socket.if_nameindex():
                with suppress(OSError):  # it has no address
                    reply = fcntl.ioctl(
                        asked, 0x8915, name.encode()[:15].ljust(40, b"\0")
                    )  # SIOCGIFADDR, netdevice(7)
                    found.append(socket.inet_ntoa(reply[20:24]))
    return [address for address in found if not address.startswith("127.")]
