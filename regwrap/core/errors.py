"""What can go wrong, in three parts: what happened, what the tool said, what to do.

A class exists only where someone catches it or where it has an exit code of its own.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Final

from regwrap.core.counts import counted

if TYPE_CHECKING:
    from collections.abc import Sequence


class ExitCode(IntEnum):
    """Exit codes of the command line; `docs/` and the README list the same."""

    DONE = 0
    IMAGES_FAILED = 1
    USAGE = 2
    TOOL = 3
    INTEGRITY = 4
    BUG = 70


class RegwrapError(Exception):
    """An error the user can act on: `message` says what happened, `detail` what the tool said, `hint` what to do.
    `problems` are all that were found, a line each. `advice` is what to do where nothing better is known."""

    exit_code: ClassVar[ExitCode] = ExitCode.TOOL
    advice: ClassVar[str] = "fix the cause and rerun; finished work is not repeated"

    def __init__(self, message: str, *, detail: str = "", hint: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint
        self.problems = problems

    def __str__(self) -> str:
        return ": ".join(part for part in (self.message, self.detail.strip()) if part)


class UsageError(RegwrapError):
    """Bad input from the user: a list, the configuration, an option, a refused overwrite."""

    exit_code = ExitCode.USAGE
    advice = "see regwrap COMMAND --help for the expected arguments, with examples"


class ImagesFailedError(RegwrapError):
    """Some listed images could not be had; the message names each of them."""

    exit_code = ExitCode.IMAGES_FAILED
    advice = "compare these images with the source: regwrap sync LIST --dry-run looks and copies nothing"


class ToolError(RegwrapError):
    """A program, the network or the disk failed. `transient` says whether the same call may succeed later; `host`
    whose fault it was, where that is known; `outage` that the host may be away as a whole."""

    exit_code = ExitCode.TOOL
    advice = "rerun; finished work is not repeated. regwrap doctor shows what this machine needs"

    def __init__(
        self,
        message: str,
        *,
        detail: str = "",
        hint: str = "",
        transient: bool = False,
        host: str = "",
        outage: bool = False,
    ) -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.transient = transient
        self.host = host
        self.outage = outage


class HostDownError(ToolError):
    """Nothing comes from `host` any more; what else needs it is not tried. Caught to count the images concerned."""


class IntegrityError(RegwrapError):
    """Bytes are not what their digest, size or format says."""

    exit_code = ExitCode.INTEGRITY
    advice = "rebuild or re-copy a bundle; repair an archive with regwrap sync --hash; regwrap verify lists the damage"


class BrokenBlobError(IntegrityError):
    """A blob of the archive is not what it was; the image has to be synced again. Caught by `release`."""


class LostBlobError(IntegrityError):
    """The disk does not give a blob's bytes. Caught where blobs are looked at, all of which it concerns alone."""


class Interrupted(BaseException):
    """Raised in the main thread by the handlers of SIGINT, SIGTERM and SIGHUP; not an `Exception` on purpose."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.signum = signum


def usage_error(name: str, problems: Sequence[str], *, hint: str = "", count: int = 0) -> UsageError:
    """All that is wrong with `name`: one problem is the message itself, of several the message is the number. `count`
    is that number where not each of them has a line of its own."""
    if len(problems) == 1:
        return UsageError(problems[0], hint=hint)
    return UsageError(f"{name}: {counted(count or len(problems), 'problem')}", problems=tuple(problems), hint=hint)


def error_text(error: RegwrapError) -> str:
    """What happened, what the tool said, what to do."""
    detail = error.detail.strip()
    lines = [f"regwrap: {error.message}" + (f": {detail}" if detail and "\n" not in detail else "")]
    lines += [f"  {line}" for line in detail.splitlines()] if "\n" in detail else []
    lines += [f"  {problem}" for problem in error.problems]
    return "\n".join([*lines, f"  -> {error.hint or error.advice}"])


OUR_DISK_HINT: Final = "the disk is full (df, df -i, quota): free space and rerun"
FULL_DISK_HINT: Final = "see the registry's log; a full disk there (df, df -i, quota) is a common cause"
