"""Hosts on this machine, each behind a link of limited rate: a network namespace a host, with a
name, a /dev/shm and a network of its own, all on one bridge. For Linux, as root, with `ip`, `tc`,
`unshare` and `nsenter` (iproute2, util-linux); the hosts share the cores.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

NET, BRIDGE = "10.79.0", "ens-br"
TOOLS = ("ip", "tc", "unshare", "nsenter")
BURST = ("burst", "256kb", "latency", "200ms")  # of a link: what it lets through at once
START = (
    "hostname {name}; mount --make-rprivate /; mount -t tmpfs tmpfs /dev/shm; "
    "mount --bind {hosts} /etc/hosts; echo up > {up}; exec sleep infinity"
)
# What a launcher takes for ssh: [options] HOST COMMAND...
SHELL = """#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1; shift
exec nsenter -t "$(cat {directory}/$host.pid)" -n -u -i -m --wd="$PWD" -- sh -c "$*"
"""


def obstacle() -> str:
    """Return why there can be no such hosts here, "" where there can."""
    missing = [tool for tool in TOOLS if subprocess.call(["which", tool], stdout=-3)]
    if missing:
        return f"no {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "not root"


@contextmanager
def hosts(count: int, rate: str) -> Iterator[tuple[list[str], Path]]:
    """Give the names of so many hosts within the block, and what starts a command on one of them as
    ssh does.

    rate: of each link in either direction, as tc has it, such as "100mbit".
    """
    names = [f"host{number}" for number in range(1, count + 1)]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        stack.callback(_run, "ip", "link", "del", BRIDGE)
        _run("ip", "addr", "add", f"{NET}.254/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        listed = [f"{NET}.{number} {name}" for number, name in enumerate(names, 1)]
        (directory / "hosts").write_text("\n".join(["127.0.0.1 localhost", *listed, ""]))
        for number, name in enumerate(names, 1):
            stack.callback(_end, _host(directory, name))
            stack.callback(subprocess.call, ("ip", "link", "del", f"ens-{name}"))
            _link(directory, name, number, rate)
        shell = directory / "shell"
        shell.write_text(SHELL.format(directory=directory))
        shell.chmod(0o755)
        yield names, shell


def _host(directory: Path, name: str) -> subprocess.Popen:
    """Start the process that holds the namespaces of a host."""
    up = directory / f"{name}.up"
    script = START.format(name=name, hosts=directory / "hosts", up=up)
    process = subprocess.Popen(["unshare", "-n", "-u", "-i", "-m", "sh", "-c", script])
    (directory / f"{name}.pid").write_text(str(process.pid))
    while not up.exists():
        if process.poll() is not None:
            raise SystemExit(f"no namespace for {name}: unshare ended with {process.returncode}")
        time.sleep(0.01)
    return process


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def _link(directory: Path, name: str, number: int, rate: str) -> None:
    """Connect a host with the bridge, both ends of the link limited."""
    pid, outer = (directory / f"{name}.pid").read_text(), f"ens-{name}"
    inside = ("nsenter", "-t", pid, "-n")
    _run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", pid)
    _run("ip", "link", "set", outer, "master", BRIDGE, "up")
    _run(*inside, "ip", "link", "set", "lo", "up")
    _run(*inside, "ip", "addr", "add", f"{NET}.{number}/24", "dev", "eth0")
    _run(*inside, "ip", "link", "set", "eth0", "up")
    for place, device in (((), outer), (inside, "eth0")):
        _run(*place, "tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", rate, *BURST)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def on_hosts(names: Sequence[str], shell: Path, command: Sequence[str]) -> list[str]:
    """Return the command line of MPICH's mpirun that starts a command, a rank on each host."""
    listed = ["-hosts", ",".join(names), "-ppn", "1", "-n", str(len(names))]
    return ["-launcher", "ssh", "-launcher-exec", str(shell), "-iface", BRIDGE, *listed, *command]
