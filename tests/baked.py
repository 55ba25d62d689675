"""A baked image's registry, run from what umoci has unpacked of it."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def umoci(*args: str | Path) -> str:
    return subprocess.run(["umoci", *args], check=True, timeout=300, capture_output=True, text=True).stdout


@contextmanager
def baked_registry(bundle: Path) -> Iterator[str]:
    """The image's own entry point in its own root; on another port, since a test can't have the image's."""
    process = json.loads((bundle / "config.json").read_text())["process"]
    environment = dict(pair.split("=", 1) for pair in process["env"])
    log = bundle / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            ["chroot", bundle / "rootfs", *process["args"]],
            env={**environment, "REGISTRY_HTTP_ADDR": "127.0.0.1:0"},
            stdout=output,
            stderr=output,
        ) as server,
    ):
        try:
            yield _host(server, log)
        finally:
            server.kill()


def _host(server: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        if match := re.search(rb"listening on (127\.0\.0\.1:\d+)", log.read_bytes()):
            return match[1].decode()
        time.sleep(0.01)
    raise AssertionError(log.read_text(errors="replace"))
