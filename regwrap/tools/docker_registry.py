"""docker-registry on a loopback port, for the length of a block.

Its configuration is regwrap's alone: the environment is built from nothing (REGISTRY_* would override the file), no
blob cache (it lies when the directory changes behind it), no upload purging, output into a file (an unread pipe
freezes it). An answer counts only with the nonce of this start: the port alone proves nothing.
"""

from __future__ import annotations

import json
import secrets
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import ToolError
from regwrap.core.location import Registry
from regwrap.core.writing import write_file
from regwrap.tools.answers import REGISTRY_ERROR, REGISTRY_LISTENS
from regwrap.tools.runner import Command, Runner, Server, Tool, last_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_START_SECONDS: Final = 20.0
_END_SECONDS: Final = 10.0
_NAMES: Final = {"docker-registry", "registry"}  # Debian's package, the project's own image
_NONCE_HEADER: Final = "X-Regwrap-Nonce"


@contextmanager
def started_registry(
    runner: Runner,
    root: Path,
    *,
    scratch: Path,
    read_only: bool,
    wrap: Callable[[Command], Command],
) -> Iterator[tuple[Registry, Server]]:
    """Serve the storage at `root` on a free loopback port. `wrap` may put the registry's command into another one that
    becomes it. Call from the main thread. Raises ToolError."""
    nonce = secrets.token_hex(16)
    config = scratch / f"registry-{nonce}.yml"
    write_file(config, json.dumps(_config(root, nonce, read_only=read_only)))  # JSON is YAML
    log = scratch / f"registry-{nonce}.log"
    command = wrap(Command(tool=Tool.DOCKER_REGISTRY, args=("serve", f"{config}")))
    with runner.serving(command, log) as server:
        port = _ready_port(server, nonce)
        yield Registry(host=f"127.0.0.1:{port}", tls_verify=False, plain_http=True), server


def runs_here(processes: Path = Path("/proc")) -> bool:
    """Whether somebody's docker-registry seems to run on this machine, in a container too: on which directory, another
    user cannot see."""
    for name in processes.glob("[0-9]*/comm"):
        with suppress(OSError):  # it has ended
            if name.read_text(encoding="utf-8", errors="replace").strip() in _NAMES:
                return True
    return False


def _config(root: Path, nonce: str, *, read_only: bool) -> dict[str, object]:
    return {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": f"{root}"},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}, "readonly": {"enabled": read_only}},
        },
        "http": {"addr": "127.0.0.1:0", "headers": {_NONCE_HEADER: [nonce], "X-Content-Type-Options": ["nosniff"]}},
    }


def _ready_port(server: Server, nonce: str) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.is_alive():
        text = server.log.read_text(encoding="utf-8", errors="replace")
        match = REGISTRY_LISTENS.search(text)
        if match and _answers(int(match[1]), nonce):
            return int(match[1])
        time.sleep(0.02)
    said = last_lines(server.log.read_text(encoding="utf-8", errors="replace"))
    how = server.ending(0) or f"no answer within {_START_SECONDS:g} s"
    raise ToolError(f"docker-registry did not start: {how}", detail=said)


def why_it_does_not_answer(server: Server, *, is_cut: bool) -> str:
    """How the registry ended, or what it logged last as an error; empty where neither is known.

    One that cuts or refuses connections is dying, which takes seconds on a busy machine: its end is waited for.
    """
    if how := server.ending(_END_SECONDS if is_cut else 0):
        return how
    lines = server.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in reversed(lines) if REGISTRY_ERROR in line), "")


def _answers(port: int, nonce: str) -> bool:
    import http.client  # half of what starts this module, and few start registries

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/v2/")
        return connection.getresponse().headers.get(_NONCE_HEADER) == nonce
    return False
