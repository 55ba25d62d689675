"""The machine and the programs that figures belong to. No paths: figures get published."""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from scene import Scene

_PROGRAMS: Final = ("skopeo", "docker-registry", "tar", "cat", "openssl")


def environment_facts(scene: Scene) -> dict[str, object]:
    first_line = scene.shell.first_line
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "file system": first_line(["stat", "-f", "-c", "%T", f"{scene.scratch}"]),
        "python": platform.python_version(),
        "regwrap": first_line([*scene.regwrap, "--version"]) or "unknown",
        # openssl has no --version option.
        **{name: first_line([name, _version_flag(name)]) or "unknown" for name in _PROGRAMS},
    }


def _version_flag(program: str) -> str:
    return "version" if program == "openssl" else "--version"


def _field(path: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.+)$", Path(path).read_text(), re.MULTILINE)
    return found[1] if found else "unknown"
