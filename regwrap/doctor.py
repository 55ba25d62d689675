"""Can this machine do it: programs and their versions, the archive's place, room for scratch files."""

import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regwrap.errors import RegwrapError
from regwrap.tools.overlay import try_overlay
from regwrap.tools.runner import Command, Runner, Tool

_NEEDS: Final = {
    # program: (arguments that print its version, least version, commands that need it, Debian's package)
    Tool.SKOPEO: (("--version",), (1, 9), ("sync", "release"), "skopeo"),
    Tool.TAR: (("--version",), (1, 30), ("package", "release"), "tar"),
    Tool.SETPRIV: (("--version",), (2, 33), ("sync", "package", "release"), "util-linux"),
    Tool.DOCKER_REGISTRY: (
        ("--version",),
        (2, 8),
        ("sync from a storage into a registry", "workspace"),
        "docker-registry",
    ),
    Tool.UNSHARE: (("--version",), (2, 38), ("package --strategy overlay", "workspace"), "util-linux"),
    Tool.MOUNT: (("--version",), (2, 38), ("package --strategy overlay", "workspace"), "mount"),
    Tool.UMOCI: (("--version",), (0, 4), ("bake", "the demo and the tests"), "umoci"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at. `advice` says what to do where it is not `ok`."""

    name: str
    ok: bool
    found: str
    needed_for: tuple[str, ...]
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def examine_machine(runner: Runner, *, archive: Path | None, scratch: Path) -> DoctorReport:
    """Look at all that the commands need; changes nothing."""
    programs = [_program(runner, tool) for tool in _NEEDS]
    python = Check(name="python", ok=True, found=sys.version.split()[0], needed_for=("everything",))
    places = [_place("scratch directory", scratch, ("everything",), "set TMPDIR to a directory you can write to")]
    if archive is not None:
        places.append(_place("archive", archive, ("sync", "package", "release"), "set archive: or --archive"))
    return DoctorReport(checks=(python, *programs, *places, _overlay(runner)))


def tool_versions(runner: Runner) -> dict[str, str]:
    """Versions of the programs that are installed, `-` for those that are not."""
    return {tool.value: _version(runner, tool) or "-" for tool in _NEEDS}


def _overlay(runner: Runner) -> Check:
    needed_for = ("package --strategy overlay", "workspace")
    with tempfile.TemporaryDirectory(dir=runner.scratch) as name:
        place = Path(name)
        (place / "history").mkdir()
        try:
            found = try_overlay(runner, lower=place / "history", place=place).shown
        except RegwrapError as error:
            return Check(
                name="overlay",
                ok=False,
                found=error.detail.replace("\n", "; "),
                needed_for=needed_for,
                advice=error.hint,
            )
    return Check(name="overlay", ok=True, found=f"works {found}", needed_for=needed_for)


def _program(runner: Runner, tool: Tool) -> Check:
    _args, least, needed_for, package = _NEEDS[tool]
    version = _version(runner, tool)
    if version is None:
        advice = f"apt-get install {package}"
        return Check(name=tool, ok=False, found="not installed", needed_for=needed_for, advice=advice)
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    ok = numbers >= least
    advice = "" if ok else f"at least version {'.'.join(map(str, least))} is needed"
    return Check(name=tool, ok=ok, found=version, needed_for=needed_for, advice=advice)


def _version(runner: Runner, tool: Tool) -> str | None:
    if runner.which(tool) is None or runner.which(Tool.SETPRIV) is None:
        return None
    try:
        result = runner.run(Command(tool=tool, args=_NEEDS[tool][0], timeout=20, ok_codes=(0, 1, 2)))
    except RegwrapError:
        return None
    match = re.search(r"\d+\.\d+(\.\d+)?\S*", result.stdout.decode(errors="replace") + result.stderr)
    return match[0] if match else "unknown"


def _place(name: str, path: Path, needed_for: tuple[str, ...], advice: str) -> Check:
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    status = os.statvfs(there)
    free = status.f_bavail * status.f_frsize / 1e9
    ok = os.access(there, os.W_OK | os.X_OK)
    found = f"{path} ({free:.1f} GB free)" if ok else f"{path}: not writable"
    return Check(name=name, ok=ok, found=found, needed_for=needed_for, advice="" if ok else advice)
