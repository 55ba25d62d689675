"""Can this machine do it: which commands work here, what the others lack, and how to get it.

A machine is fit when every command works, with selection as `package`'s way: overlays are a matter of privileges that
containers seldom have, and everything can be done without them.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import RegwrapError
from regwrap.storage.space import free_space
from regwrap.tools.overlay import try_overlay
from regwrap.tools.runner import Command, Runner, Tool
from regwrap.tools.scratch import overlay_directory

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.commands.doctor_registries import RegistryHealth
    from regwrap.config.skopeo_files import Finding

_PROGRAMS: Final = {
    # program: (arguments that print its version, least version, Debian's package)
    Tool.SKOPEO: (("--version",), (1, 9), "skopeo"),
    Tool.CURL: (("--version",), (7, 86), "curl"),
    Tool.TAR: (("--version",), (1, 30), "tar"),
    Tool.SETPRIV: (("--version",), (2, 33), "util-linux"),
    Tool.DOCKER_REGISTRY: (("--version",), (2, 8), "docker-registry"),
    Tool.UNSHARE: (("--version",), (2, 38), "util-linux"),
    Tool.MOUNT: (("--version",), (2, 38), "mount"),
    Tool.UMOCI: (("--version",), (0, 4), "umoci"),
    Tool.PAR2: (("--version",), (0, 8), "par2"),
}
# any version will do
_SIGNING: Final = {Tool.SSH_KEYGEN: "openssh-client", Tool.OPENSSL: "openssl"}
_BCRYPT: Final = "bcrypt"
_PYTHON: Final = "python"
_SCRATCH: Final = "scratch directory"
_ARCHIVE: Final = "archive"
_OVERLAY: Final = "overlay"
_ABOVE: Final = (
    _OVERLAY,
    Tool.SKOPEO,
    Tool.CURL,
    Tool.TAR,
    Tool.SETPRIV,
    Tool.DOCKER_REGISTRY,
    Tool.UNSHARE,
    Tool.MOUNT,
)

# command: what it needs beyond a scratch directory
_COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "sync": (Tool.SKOPEO, Tool.CURL, Tool.SETPRIV, _ARCHIVE),
    "lock": (Tool.SKOPEO, Tool.SETPRIV, _ARCHIVE),
    "package": (Tool.TAR, Tool.SETPRIV, _ARCHIVE),
    "package --strategy direct": (Tool.SKOPEO, Tool.CURL, Tool.SETPRIV),
    "package --strategy overlay": _ABOVE,
    "release": (Tool.SKOPEO, Tool.CURL, Tool.TAR, Tool.SETPRIV, _ARCHIVE),
    "workspace": _ABOVE,
    "init, list, report, diff": (),
    "deploy, push, serve, verify, inspect, export, import, join": (),
    "releases, rollback, gc": (),
    "bake": (Tool.UMOCI, Tool.SETPRIV),
    "package --parity, repair": (Tool.PAR2, Tool.SETPRIV),
    "release --sign-key, deploy --signers": (Tool.SSH_KEYGEN, Tool.SETPRIV),
    "verify --signed-by": (Tool.OPENSSL, Tool.SETPRIV),
    "serve --htpasswd": (_BCRYPT,),
}
# few need these, or there is another way
_OPTIONAL: Final = {_OVERLAY, Tool.PAR2, *_SIGNING, _BCRYPT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at. `advice` says what to do where it is not `ok`."""

    name: str
    ok: bool
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandCheck:
    """Whether a command works here; else what is `missing`, and `how` to get each. `optional`: a machine is fit without
    it."""

    command: str
    works: bool
    optional: bool
    missing: tuple[str, ...] = ()
    how: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCheck:
    """A worker of a cluster, where `problems` are all that keep it from taking part, each with what to do."""

    worker: str
    machine: str
    regwrap: str = "-"
    python: str = "-"
    skopeo: str = "-"
    curl: str = "-"
    logins: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """`outside` is what the configuration of other programs means for registries outside; `workers` are a cluster's."""

    commands: tuple[CommandCheck, ...]
    checks: tuple[Check, ...]
    outside: tuple[Finding, ...]
    registries: tuple[RegistryHealth, ...] = ()
    workers: tuple[WorkerCheck, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything can be done here, in one way or another, with all registries that are configured."""
        return (
            all(command.works or command.optional for command in self.commands)
            and all(registry.ok for registry in self.registries)
            and not any(worker.problems for worker in self.workers)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorDirectories:
    """The directories that commands would use: `archive` None where it is a registry; `uppers`, of which an overlay
    takes the first that it works in; `scratch`, a private one of this run."""

    archive: Path | None
    uppers: tuple[Path, ...]
    scratch: Path


def examine_machine(runner: Runner, places: DoctorDirectories, outside: tuple[Finding, ...]) -> DoctorReport:
    """Look at all that the commands need; changes nothing."""
    programs = [_program(runner, tool) for tool in _PROGRAMS]
    others = [_installed(tool, package, runner.which(tool)) for tool, package in _SIGNING.items()]
    bcrypt = _installed(_BCRYPT, "python3-bcrypt", find_spec(_BCRYPT))
    python = Check(name=_PYTHON, ok=True, found=sys.version.split()[0])
    directories = [_place(_SCRATCH, places.scratch.parent, "set TMPDIR to a directory you can write to")]
    if places.archive is not None:
        directories.append(_place(_ARCHIVE, places.archive, "set archive: or --archive"))
    checks = (python, *programs, *others, bcrypt, *directories, _overlay(runner, places))
    by_name = {check.name: check for check in checks}
    commands = tuple(_command(command, needs, by_name) for command, needs in _COMMANDS.items())
    return DoctorReport(commands=commands, checks=checks, outside=outside)


def _command(command: str, needs: tuple[str, ...], checks: dict[str, Check]) -> CommandCheck:
    failed = [checks[name] for name in (*needs, _SCRATCH) if name in checks and not checks[name].ok]
    return CommandCheck(
        command=command,
        works=not failed,
        optional=bool(_OPTIONAL.intersection(needs)),
        missing=tuple(f"{check.name}: {check.found}" for check in failed),
        how=tuple(check.advice for check in failed),
    )


def tool_versions(runner: Runner) -> dict[str, str]:
    """Versions of the programs that are installed, `-` for those that are not."""
    return {tool.value: _version(runner, tool) or "-" for tool in _PROGRAMS}


def _overlay(runner: Runner, places: DoctorDirectories) -> Check:
    if runner.which(Tool.MOUNT) is None:  # each trial would say so at length
        return Check(name=_OVERLAY, ok=False, found="there is no mount", advice="apt-get install mount")
    errors: list[RegwrapError] = []
    for place in dict.fromkeys(place.absolute() for place in places.uppers):
        history = places.scratch / "history"
        history.mkdir(exist_ok=True)
        try:
            with overlay_directory(place, places.scratch) as run:
                mode = try_overlay(runner, lower=history, place=run)
        except RegwrapError as error:
            errors.append(error)
        else:
            return Check(name=_OVERLAY, ok=True, found=f"works {mode.shown}, the upper layer in {place}")
    found = dict.fromkeys(line for error in errors for line in (error.detail or error.message).splitlines())
    return Check(name=_OVERLAY, ok=False, found="; ".join(found), advice=errors[0].hint)


def _installed(name: str, package: str, found: object) -> Check:
    if found is None:
        return Check(name=name, ok=False, found="not installed", advice=f"apt-get install {package}")
    return Check(name=name, ok=True, found="installed")


def _program(runner: Runner, tool: Tool) -> Check:
    _args, least, package = _PROGRAMS[tool]
    version = _version(runner, tool)
    if version is None:
        return _installed(tool, package, None)
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    ok = numbers >= least
    advice = "" if ok else f"at least version {'.'.join(map(str, least))} is needed"
    return Check(name=tool, ok=ok, found=version, advice=advice)


def _version(runner: Runner, tool: Tool) -> str | None:
    if runner.which(tool) is None or runner.which(Tool.SETPRIV) is None:
        return None
    try:
        result = runner.run(Command(tool=tool, args=_PROGRAMS[tool][0], timeout=20, ok_codes=(0, 1, 2)))
    except RegwrapError:
        return None
    match = re.search(r"\d+\.\d+(\.\d+)?\S*", result.stdout.decode(errors="replace") + result.stderr)
    return match[0] if match else "unknown"


def _place(name: str, path: Path, advice: str) -> Check:
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    free = free_space(there).bytes
    ok = os.access(there, os.W_OK | os.X_OK)
    room = "" if free is None else f" ({free / 1e9:.1f} GB free)"
    found = f"{path}{room}" if ok else f"{path}: not writable"
    return Check(name=name, ok=ok, found=found, advice="" if ok else advice)
