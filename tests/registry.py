"""A real docker-registry on loopback for tests, started without regwrap's help: an independent witness."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LISTENING: Final = re.compile(rb"listening on ((?:127\.0\.0\.1|\[::1\]):\d+)")
_START_SECONDS: Final = 30.0


@dataclass(frozen=True)
class LoopbackRegistry:
    """`host` is 127.0.0.1:PORT, or [::1]:PORT where `extra` says so; `root` the storage behind it; `log` the file with
    all it said."""

    host: str
    root: Path
    log: Path
    pid: int


@contextmanager
def served_loopback(
    root: Path, *, scratch: Path, extra: Mapping[str, object] | None = None
) -> Iterator[LoopbackRegistry]:
    """Serve `root` for the block. `extra` is merged into the configuration, key by key at every level."""
    scratch.mkdir(parents=True, exist_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    config, log = scratch / "config.yml", scratch / "registry.log"
    config.write_text(json.dumps(_merged(_config(root), extra or {})), encoding="utf-8")
    with (
        log.open("wb") as output,
        subprocess.Popen(
            ["docker-registry", "serve", os.fspath(config)],
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": os.fspath(scratch)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            yield LoopbackRegistry(host_in(log, _LISTENING, process), root, log, process.pid)
        finally:
            process.kill()


def registry_version() -> tuple[int, ...]:
    """Of the one that is installed: 2 and 3 collect garbage differently."""
    said = subprocess.run(["docker-registry", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r" v?(\d+)\.(\d+)", said)
    assert match, said
    return int(match[1]), int(match[2])


def host_in(log: Path, listening: re.Pattern[bytes], process: subprocess.Popen[bytes]) -> str:
    """Where a server says that it listens, as soon as it does."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if match := listening.search(log.read_bytes()):
            return match[1].decode()
        time.sleep(0.01)
    raise AssertionError(f"{process.args!r} did not start: {log.read_text(errors='replace')}")


def _config(root: Path) -> dict[str, object]:
    return {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": os.fspath(root)},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": "127.0.0.1:0"},
    }


def _merged(base: dict[str, object], extra: Mapping[str, object]) -> dict[str, object]:
    result = dict(base)
    for key, value in extra.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result
