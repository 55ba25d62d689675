"""A machine in trouble, for one command: `unshare --mount [--net] python island.py TROUBLE DIRECTORY COMMAND...`."""

import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

_NO_SUCH_NAME, _SERVER_FAILURE = 0x8183, 0x8182
_UP, _HOST, _REJECT = 1, 4, 0x200
_SET_FLAGS: Final = 0x8914
_ADD_ROUTE: Final = 0x890B
NOWHERE: Final = "192.0.2.1"  # an address for documentation (RFC 5737)


def full_disk(directory: Path) -> None:
    _mount("-t", "tmpfs", "-o", "size=4k", "tmpfs", directory / "layout")
    (directory / "layout/shared/sha256").mkdir(parents=True)


def no_network(_directory: Path) -> None:
    """It has none: --net."""


def no_route(_directory: Path) -> None:
    address = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(NOWHERE))
    flags = _UP | _HOST | _REJECT
    route = struct.pack("L16s16s16sHhLPhPLLH", 0, address, b"", b"", flags, 0, 0, 0, 0, 0, 0, 0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _ADD_ROUTE, route)


def no_such_name(directory: Path) -> None:
    _serve_names(directory, _NO_SUCH_NAME)


def broken_names(directory: Path) -> None:
    _serve_names(directory, _SERVER_FAILURE)


def broken_names_for_libc(directory: Path) -> None:
    """Asked through the C library, as where nsswitch.conf has modules of its own."""
    broken_names(directory)
    os.environ["GODEBUG"] = "netdns=cgo"


def _serve_names(directory: Path, verdict: int) -> None:
    """By a server that gives all questions the same answer (RFC 1035, 4.1.1)."""
    _replace("/etc/resolv.conf", directory, "nameserver 127.0.0.1\noptions attempts:1\n")
    _replace("/etc/nsswitch.conf", directory, "hosts: files dns\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sH22x", b"lo", _UP))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    threading.Thread(target=_fail_questions, args=(server, verdict), daemon=True).start()


def _fail_questions(server: socket.socket, verdict: int) -> None:
    while True:
        question, client = server.recvfrom(4096)
        server.sendto(question[:2] + struct.pack("!H", verdict) + question[4:], client)


def blocked(directory: Path) -> None:
    place = directory / "conf.d"
    place.mkdir()
    host = (directory / "host").read_text()
    (place / "blocked.conf").write_text(
        f'[[registry]]\nprefix = "{host}/a/one"\nlocation = "{host}/a/one"\nblocked = true\n'
    )
    _mount("--bind", place, "/etc/containers/registries.conf.d")


def _replace(path: str, directory: Path, text: str) -> None:
    own = directory / Path(path).name
    own.write_text(text)
    _mount("--bind", own, path)


def _mount(*args: str | Path) -> None:
    subprocess.run(["mount", *args], check=True)


_TROUBLES: Final[tuple[Callable[[Path], None], ...]] = (
    full_disk,
    no_network,
    no_route,
    no_such_name,
    broken_names,
    broken_names_for_libc,
    blocked,
)


def main() -> int:
    trouble, directory, *command = sys.argv[1:]
    {make.__name__: make for make in _TROUBLES}[trouble](Path(directory))
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
