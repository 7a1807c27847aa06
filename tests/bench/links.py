"""A switch between the hosts of hosts.sh, in user space: full-duplex links of a speed and a delay,
for kernels without netem.

links.py BITS_A_SECOND SECONDS IFACE...     pass frames, for ever
links.py --no-offload IFACE                 have this host's card send whole, summed-up frames
"""

import array
import contextlib
import fcntl
import heapq
import os
import select
import socket
import struct
import sys
import time
from itertools import count

LONGEST = 65_600  # bytes of a frame
AT_ONCE = 64  # frames of one link, before others have their turn
ROOM = 64 << 20  # bytes that a link may hold back
# From Linux's headers: SO_SNDBUFFORCE, SO_RCVBUFFORCE, and PACKET_IGNORE_OUTGOING of SOL_PACKET.
BUFFERS, IGNORE_OUTGOING = (32, 33), (263, 23)
SIOCETHTOOL, OFF = 0x8946, (0x1F, 0x24, 0x2C, 0x19, 0x17)  # TSO, GSO, GRO, SG, TX checksums


def no_offload(interface: str) -> None:
    """Have frames carry whole checksums, and be no longer than the link allows."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for command in OFF:
            value = array.array("B", struct.pack("II", command, 0))
            request = struct.pack("16sP", interface.encode(), value.buffer_info()[0])
            with contextlib.suppress(OSError):
                fcntl.ioctl(asked, SIOCETHTOOL, request)


def opened(interface: str) -> socket.socket:
    """Return a socket for all frames that come over an interface."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    found.bind((interface, 0))
    found.setblocking(False)
    for option in BUFFERS:
        found.setsockopt(socket.SOL_SOCKET, option, ROOM)
    found.setsockopt(*IGNORE_OUTGOING, 1)
    return found


class Switch:
    """Links that are busy with a frame for its length over their speed, on its way in and out; a
    frame leaves while it still comes in, `delay` seconds later.
    """

    def __init__(self, interfaces: list[str], speed: float, delay: float) -> None:
        sockets = [opened(interface) for interface in interfaces]
        self.sockets = {each.fileno(): each for each in sockets}
        self.second, self.delay = 8 / speed, delay  # of a byte
        self.busy_in = dict.fromkeys(self.sockets, 0.0)
        self.busy_out = dict.fromkeys(self.sockets, 0.0)
        self.homes: dict[bytes, int] = {}  # of addresses
        self.held: list[tuple[float, int, int, bytes]] = []
        self.number = count()

    def run(self) -> None:
        """Pass frames, for ever."""
        while True:
            wait = max(0.0, self.held[0][0] - time.monotonic()) if self.held else None
            ready, _, _ = select.select(list(self.sockets), [], [], wait)
            for link in ready:
                self.take(link)
            self.send()

    def take(self, link: int) -> None:
        """Take what has come over a link."""
        for _ in range(AT_ONCE):
            try:
                frame = self.sockets[link].recv(LONGEST)
            except BlockingIOError:
                return
            now, seconds = time.monotonic(), len(frame) * self.second
            self.homes[frame[6:12]] = link
            begun = max(now, self.busy_in[link])
            self.busy_in[link] = begun + seconds
            home = self.homes.get(frame[:6])
            for target in [home] if home is not None else self.sockets.keys() - {link}:
                leaves = max(begun + self.delay, self.busy_out[target]) + seconds
                self.busy_out[target] = leaves
                heapq.heappush(self.held, (leaves, next(self.number), target, frame))

    def send(self) -> None:
        """Send what is due."""
        now = time.monotonic()
        while self.held and self.held[0][0] <= now:
            _, _, link, frame = heapq.heappop(self.held)
            with contextlib.suppress(OSError):
                self.sockets[link].send(frame)


def main(arguments: list[str]) -> None:
    """Be the switch, or prepare a host."""
    if arguments[0] == "--no-offload":
        no_offload(arguments[1])
        return
    with contextlib.suppress(OSError):  # or waiting ranks, which spin, would add milliseconds
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    Switch(arguments[2:], float(arguments[0]), float(arguments[1])).run()


if __name__ == "__main__":
    main(sys.argv[1:])
