"""docker-registry on a loopback port that the kernel picks, for as long as a block lasts."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shell import ProgramFailedError, Shell

PROGRAM: Final = "docker-registry"
_LISTENING: Final = re.compile(rb"listening on (127\.0\.0\.1:\d+)")
_START_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.02


@contextlib.contextmanager
def served_registry(shell: Shell, storage: Path) -> Iterator[str]:
    """Yields HOST:PORT. The port comes from the log of our own child, so it is ours."""
    config = shell.home / f"{storage.name}.yml"
    log = shell.home / f"{storage.name}.log"
    config.write_text(json.dumps(registry_config(storage)))
    with shell.started([PROGRAM, "serve", f"{config}"], log=log) as process:
        give_up = time.monotonic() + _START_SECONDS
        while not (found := _LISTENING.search(log.read_bytes())):
            if process.poll() is not None or time.monotonic() > give_up:
                raise ProgramFailedError(f"{PROGRAM} did not start: {log.read_text()[-600:]}")
            time.sleep(_POLL_SECONDS)
        yield found[1].decode()


def registry_config(storage: Path) -> dict[str, object]:
    """No cache key: the registry's memory would lie when a storage is emptied between runs."""
    return {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": f"{storage}"},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": "127.0.0.1:0"},
    }
