"""A Docker daemon of a test's own: nothing of the machine's is touched."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SBIN: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Docker:
    socket: Path

    @property
    def containerd(self) -> Path:
        """The socket of its containerd, which keeps images of its own."""
        return self.socket.parent / "exec/containerd/containerd.sock"

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "-H", f"unix://{self.socket}", *args],
            env={"PATH": _SBIN, "HOME": f"{self.socket.parent}"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@contextmanager
def started_dockerd(storage_driver: str = "vfs") -> Iterator[Docker]:
    # its socket's path may have 108 bytes, which pytest's directories exceed
    with tempfile.TemporaryDirectory(prefix="dockerd-", ignore_cleanup_errors=True) as text:
        place = Path(text)
        docker = Docker(place / "docker.sock")
        command = [
            shutil.which("dockerd", path=_SBIN) or "dockerd",
            "--bridge=none", "--iptables=false", f"--storage-driver={storage_driver}",
            f"--data-root={place}/data", f"--exec-root={place}/exec", f"--host=unix://{docker.socket}",
            f"--pidfile={place}/docker.pid", f"--config-file={place}/daemon.json",
        ]  # fmt: skip
        (place / "daemon.json").write_text("{}")
        with (
            (place / "log").open("wb") as log,
            subprocess.Popen(
                command, env={"PATH": _SBIN, "HOME": text}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            ) as process,
        ):
            try:
                deadline = time.monotonic() + 60
                while docker("version").returncode:
                    said = (place / "log").read_text(errors="replace")[-2000:]
                    assert process.poll() is None, said
                    assert time.monotonic() < deadline, said
                    time.sleep(0.1)
                yield docker
            finally:
                process.terminate()
                process.wait()
                # containers on the machine's network leave a mount there
                subprocess.run(["umount", place / "exec/netns/default"], capture_output=True, check=False)
                process.wait(30)
