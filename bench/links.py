"""Several machines on one: network namespaces of the benchmark's own, each behind a link of so many bits per second.

Nothing of it has a name outside. A namespace lives as long as the process that holds it, which the kernel kills with
this one, and takes its links and addresses with it.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shell import ProgramFailedError, Shell, find_program

TOOLS: Final = ("unshare", "nsenter", "setpriv", "ip", "tc")
HUB_ADDRESS: Final = "10.77.0.1"
_NET: Final = "10.77.0"
_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")
_START_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.01
# A link's queue: what a burst may have at once, and how long a packet may wait before it is dropped.
_QUEUE: Final = ("burst", "256kb", "latency", "100ms")


@dataclass(frozen=True, slots=True)
class Machine:
    """A namespace, by the process that holds it."""

    address: str
    holder: int

    def command(self, *argv: str) -> list[str]:
        """The same program in there, which does not live longer than the benchmark, however that ends."""
        return [*_WITH_US, "nsenter", f"--net=/proc/{self.holder}/ns/net", *argv]


def why_no_links() -> str:
    """What is missing for machines of one's own; empty if nothing is."""
    if os.geteuid():
        return "only root can make links between namespaces"
    absent = [name for name in TOOLS if find_program(name) is None]
    return f"not found: {', '.join(absent)}" if absent else ""


@contextlib.contextmanager
def linked_machines(shell: Shell, count: int, rate: str) -> Iterator[tuple[Machine, list[Machine]]]:
    """A hub without a limit, and so many machines that reach it by `rate`, as tc writes it, in each direction.
    Raises ProgramFailedError where this machine can't have them."""
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(_machine(shell, HUB_ADDRESS))
        shell.run(hub.command("ip", "link", "set", "lo", "up"))
        shell.run(hub.command("ip", "link", "add", "hub", "type", "bridge"))
        shell.run(hub.command("ip", "address", "add", f"{hub.address}/24", "dev", "hub"))
        shell.run(hub.command("ip", "link", "set", "hub", "up"))
        machines = [stack.enter_context(_machine(shell, f"{_NET}.{number + 2}")) for number in range(count)]
        for number, machine in enumerate(machines):
            _link(shell, hub, machine, f"m{number}", rate)
        yield hub, machines


@contextlib.contextmanager
def _machine(shell: Shell, address: str) -> Iterator[Machine]:
    argv = [*_WITH_US, "unshare", "--net", "sleep", "infinity"]
    with shell.started(argv, log=shell.home / "machine.log") as process:
        give_up = time.monotonic() + _START_SECONDS
        while _namespace(process.pid) == _namespace(os.getpid()):
            if process.poll() is not None or time.monotonic() > give_up:
                raise ProgramFailedError(f"no namespace: {(shell.home / 'machine.log').read_text()[-600:]}")
            time.sleep(_POLL_SECONDS)
        yield Machine(address, process.pid)


def _namespace(pid: int) -> str:
    return f"{Path('/proc', f'{pid}', 'ns/net').readlink()}"


def _link(shell: Shell, hub: Machine, machine: Machine, name: str, rate: str) -> None:
    """A pair of which one end is a port of the hub, the other eth0 of the machine; each limits what it sends."""

    def there(*argv: str) -> None:
        shell.run(hub.command(*argv))

    def here(*argv: str) -> None:
        shell.run(machine.command(*argv))

    holder = f"{machine.holder}"
    there("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", holder)
    there("ip", "link", "set", name, "master", "hub", "up")
    there("tc", "qdisc", "add", "dev", name, "root", "tbf", *_limit(rate))
    here("ip", "link", "set", "lo", "up")
    here("ip", "address", "add", f"{machine.address}/24", "dev", "eth0")
    here("ip", "link", "set", "eth0", "up")
    here("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *_limit(rate))


def _limit(rate: str) -> Sequence[str]:
    return ("rate", rate, *_QUEUE)
