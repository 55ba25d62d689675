"""overlayfs in a mount namespace of its own: a storage that is only read below, what is added above.

Mount and registry are one command line, whose first process dies with regwrap and takes the namespace and the mount
along: after success, failure or kill -9 there is nothing to unmount. Whether this machine can do it is found out by
trial (`try_overlay`), since mount's exit code proves nothing: marks that a kernel does not know are ignored silently.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import ToolError, UsageError
from regwrap.tools.docker_registry import started_registry
from regwrap.tools.removal import remove_tree
from regwrap.tools.runner import Command, Runner, RunResult, Server, Tool, last_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.core.location import Registry

SELECT_HINT: Final = "work without mounts: sync the list into an archive, then package with --strategy select"
_RIGHTS_HINT: Final = (
    "in a container: run it as root with the capability SYS_ADMIN (docker run --cap-add SYS_ADMIN; Kubernetes:"
    " securityContext.capabilities.add), where AppArmor confines it with its profile unconfined too; or"
)
_SYS_ADMIN: Final = 21  # linux/capability.h
_PLACE_HINT: Final = "give a directory on ext4, xfs, btrfs or tmpfs with --upper (in a container: on a volume), or"
_FORBIDDEN: Final = "forbidden by"
_MAX_OPTION_BYTES: Final = 4000  # mount(2) takes one page of options, and cuts what is longer
_ODD: Final = re.compile(r'[,:\\"\x00-\x1f\x7f]')
_TRIAL_SECONDS: Final = 60.0

_SYSCTLS: Final = (
    ("user/max_user_namespaces", "0"),
    ("kernel/unprivileged_userns_clone", "0"),  # Debian's and Ubuntu's kernels
    ("kernel/apparmor_restrict_unprivileged_userns", "1"),
)

# What the script says is what it proved: the words up to the first thing that did not work.
_TRIAL: Final = """
mount -t overlay -o "$1" regwrap-trial "$2" || exit 32
echo mounted
cd "$2/$3" || exit 1
echo new >new && mv new kept/new && read -r line <kept/new && [ "$line" = new ] || exit 1
rm gone && [ -z "$(ls -A | grep gone)" ] || exit 1
echo written
[ -z "$(ls -A marked)" ] && echo marked && exit 0
rm -rf removed && mkdir removed && [ -z "$(ls -A removed)" ] && echo removed
"""
_MOUNT: Final = 'mount -t overlay -o "$1" "$2" "$3" || exit 32; shift 3; exec "$@"'


class Hiding(StrEnum):
    """How what lies in a directory of the lower side is hidden."""

    MARK = "an opaque directory, marked before the mount"
    REMOVE = "removed in the merged view, since the kernel does not accept the mark"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountMode:
    """How overlays work on this machine: by the rights one has, or by those in a `new_user` namespace.

    Marks are `trusted.*` attributes, which only the machine's root may set, or `user.*` ones (the option `userxattr`).
    """

    new_user: bool
    user_marks: bool
    hiding: Hiding = Hiding.MARK

    @property
    def shown(self) -> str:
        where = "in a user namespace" if self.new_user else "in a mount namespace"
        return where + " with userxattr" * (self.user_marks and not self.new_user)


_MODES: Final = (
    MountMode(new_user=False, user_marks=False),
    MountMode(new_user=False, user_marks=True),  # root of a container's user namespace
    MountMode(new_user=True, user_marks=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """The four directories of a mount, absolute, and the mode of the mount. `upper` and `work` are this run's alone."""

    lower: tuple[Path, ...]
    upper: Path
    work: Path
    merged: Path
    mode: MountMode

    @property
    def options(self) -> str:
        """What a distribution may have switched on by module parameter is switched off: an upper with metadata only,
        or with redirected directories, is not what it seems."""
        lower = ":".join(map(str, self.lower))
        user = ",userxattr" if self.mode.user_marks else ""
        sides = f"lowerdir={lower},upperdir={self.upper},workdir={self.work}"
        return f"{sides},index=off,metacopy=off,redirect_dir=nofollow{user}"

    def around(self, command: Command, runner: Runner, name: str) -> Command:
        """The command that mounts and then becomes `command`, in namespaces that die with it."""
        args = (self.options, name, f"{self.merged}", runner.path_of(command.tool), *command.args)
        return replace(_unshared(self.mode, _MOUNT, args), env=command.env)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedOverlay:
    """A registry on the merged view. `merged` is the view's path for programs outside of the mount's namespace."""

    registry: Registry
    merged: Path
    server: Server


@contextmanager
def served_overlay(runner: Runner, overlay: Overlay, *, scratch: Path, read_only: bool) -> Iterator[ServedOverlay]:
    """Mount and serve for the length of the block. Call from the main thread. Raises ToolError."""
    name = f"regwrap-{os.getpid()}"

    def wrap(command: Command) -> Command:
        return overlay.around(command, runner, name)

    with started_registry(runner, overlay.merged, scratch=scratch, read_only=read_only, wrap=wrap) as (
        registry,
        server,
    ):
        pid = _only_child(server.process.pid)
        yield ServedOverlay(registry=registry, merged=Path(f"/proc/{pid}/root{overlay.merged}"), server=server)


def run_in_overlay(runner: Runner, overlay: Overlay, script: str, *args: str) -> None:
    """Mount, run the shell script in the merged directory, unmount. Raises ToolError."""
    options = (overlay.options, "regwrap", f"{overlay.merged}", runner.path_of(Tool.SH), "-c", script, "sh", *args)
    runner.run(_unshared(overlay.mode, _MOUNT, options))


def mark_opaque(directory: Path, mode: MountMode) -> None:
    """Hide what lies below `directory` on the lower side; only before the mount (overlayfs caches it).

    The kernel's documentation calls it an opaque directory; in a user namespace the attribute is another one.
    """
    os.setxattr(directory, opaque_mark(mode), b"y")


def opaque_mark(mode: MountMode) -> str:
    """The name of the attribute."""
    return f"{'user' if mode.user_marks else 'trusted'}.overlay.opaque"


def check_mountable(path: Path, name: str) -> None:
    """Raises UsageError for a path that mount(8) cannot be given."""
    odd = _ODD.search(f"{path}")
    if odd:
        raise UsageError(
            f"{name} {f'{path}'!r} has {odd[0]!r} in its path, which overlay mounts do not accept",
            hint='use a path without , : \\ " and control characters (a bind mount, for one), or --strategy select',
        )


def try_overlay(runner: Runner, *, lower: Path, place: Path) -> MountMode:
    """Mount, write and hide in a throw-away overlay of `lower` in `place`: by own rights, then in a user namespace.

    `place` is an empty directory of this run, made in the directory that is tried.

    Returns the first mode that takes marks, else the first that can do without them. Raises ToolError with what forbids
    each, UsageError for paths that cannot be mounted.
    """
    refusals, slow = dict[str, list[str]](), list[MountMode]()
    for mode in _MODES if os.geteuid() == 0 else _MODES[2:]:
        words, result = _trial(runner, lower, place, mode)
        if "marked" in words:
            return mode
        if "removed" in words:
            slow.append(replace(mode, hiding=Hiding.REMOVE))
        else:
            refusals.setdefault(_reason(words, result, place, mode), []).append(mode.shown)
    if slow:
        return slow[0]
    detail = "\n".join(f"{', '.join(modes)}: {reason}" for reason, modes in refusals.items())
    forbidden = all(reason.startswith(_FORBIDDEN) for reason in refusals)
    raise ToolError(
        "overlay mounts are forbidden here"
        if forbidden
        else f"no overlay works with its upper layer in {place.parent}",
        detail=detail,
        hint=f"{_RIGHTS_HINT if forbidden else _PLACE_HINT} {SELECT_HINT}",
    )


def _trial(runner: Runner, lower: Path, place: Path, mode: MountMode) -> tuple[list[str], RunResult]:
    top = place / "trial"
    own, inner = top / "lower", "regwrap-trial"
    overlay = Overlay(lower=(own, lower), upper=top / "upper", work=top / "work", merged=top / "merged", mode=mode)
    _check_options(overlay)
    try:
        upper = overlay.upper / inner
        for directory in (overlay.work, overlay.merged, upper / "marked", upper / "kept"):
            directory.mkdir(parents=True)
        for name in ("kept", "marked", "removed"):
            (own / inner / name).mkdir(parents=True)
            (own / inner / name / "old").touch()
        (own / inner / "gone").touch()
        with suppress(OSError):  # then the mark is seen not to work
            mark_opaque(upper / "marked", mode)
        command = _unshared(mode, _TRIAL, (overlay.options, f"{overlay.merged}", inner))
        result = runner.run(replace(command, ok_codes=tuple(range(256)), timeout=_TRIAL_SECONDS))
        return result.stdout.decode(errors="replace").split(), result
    finally:
        remove_tree(top)


def _check_options(overlay: Overlay) -> None:
    if len(os.fsencode(overlay.options)) > _MAX_OPTION_BYTES:
        raise UsageError(
            f"the paths are too long for an overlay mount ({_MAX_OPTION_BYTES} bytes in all)",
            hint="give a shorter directory with --upper, or --strategy select",
        )


def _unshared(mode: MountMode, script: str, args: tuple[str, ...]) -> Command:
    # --kill-child, and setpriv in front (Runner): both are needed for a kill -9 to leave nothing. exec in the script:
    # SIGTERM has to reach the registry itself.
    user = ("--user", "--map-root-user") if mode.new_user else ()
    return Command(
        tool=Tool.UNSHARE,
        args=(*user, "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
              Tool.SH, "-c", script, "sh", *args),
    )  # fmt: skip


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])


def _reason(words: list[str], result: RunResult, place: Path, mode: MountMode) -> str:
    said = last_lines(result.stderr).partition("\n")[0] or "no reason given"
    if "unshare" in said or "permission denied" in said or "must be superuser" in said:
        return f"{_FORBIDDEN} {_forbidden(mode)} ({said})"
    where = f"{place.parent} is on {file_system(place)}"
    if "mounted" not in words:
        return f"{where}, which the kernel refuses ({said})"
    if "written" not in words:
        return f"{where}, which can be mounted and then not be used: it lacks d_type, or rights ({said})"
    return f"{where}, where nothing can be hidden: it takes no extended attributes ({said})"


def _forbidden(mode: MountMode) -> str:
    """Which rule forbids namespaces or mounts: a sysctl, a missing capability, or what a container engine has set."""
    for name, forbids in _SYSCTLS if mode.new_user else ():
        if _read(Path("/proc/sys", name)) == forbids:
            return f"the sysctl {name.replace('/', '.')}={forbids}"
    status = _read(Path("/proc/self/status"))
    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if not mode.new_user and capabilities and not int(capabilities[1], 16) >> _SYS_ADMIN & 1:
        return "the kernel: the capability CAP_SYS_ADMIN is missing"
    profile = _read(Path("/proc/self/attr/apparmor/current"))
    if profile and not profile.startswith("unconfined"):
        return f"AppArmor's profile {profile}"
    if re.search(r"^Seccomp:\s*2$", status, re.MULTILINE):
        return "a seccomp filter, as container engines set one"
    return "the kernel: no user namespaces here (a chroot, or a limit)" if mode.new_user else "the kernel"


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="ascii", errors="replace").strip()
    return ""


def file_system(path: Path) -> str:
    """The type of the file system `path` is on, by the longest mount point above it (proc(5), mountinfo)."""
    best = ("", "an unknown file system")
    for line in _read(Path("/proc/self/mountinfo")).splitlines():
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields.split()[4])
        if path.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, rest.split()[0])
    return best[1]
