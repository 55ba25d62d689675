"""The one place of the benchmark that starts programs.

Every program gets an environment made from nothing, so that neither REGISTRY_* variables nor
somebody's registries.conf or proxy can change what is measured.
"""

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

# Debian keeps a daemon's programs where a user's PATH does not look.
PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_TAIL: int = 600
_STOP_SECONDS: float = 10.0
_START_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02


class ProgramFailedError(Exception):
    """A program ended with another code than 0; the text holds the end of what it said."""


@dataclass(frozen=True, slots=True)
class Shell:
    """Where programs are started from: a private home directory. `servers` are the ones that run beside the others."""

    home: Path
    servers: set[int] = field(default_factory=set)
    _instead: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def instead(self, program: str, other: str) -> Iterator[None]:
        """In the block `run` starts the other program in the place of this one."""
        self._instead[program] = other
        try:
            yield
        finally:
            del self._instead[program]

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        stdin: Path | None = None,
        stdout: IO[bytes] | None = None,
    ) -> None:
        """Run to the end; unwanted output goes to a file, so no pipe can fill up."""
        with contextlib.ExitStack() as stack:
            said = stack.enter_context((self.home / "last-output").open("w+b"))
            given = stack.enter_context((stdin or Path(os.devnull)).open("rb"))
            done = subprocess.run(
                [self._instead.get(argv[0], argv[0]), *argv[1:]],
                check=False,
                cwd=cwd,
                env=self._environment(),
                stdin=given,
                stdout=stdout or said,
                stderr=said,
            )
            if done.returncode:
                raise ProgramFailedError(_story(argv, done.returncode, said))

    @contextlib.contextmanager
    def started(self, argv: Sequence[str], *, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
        """A server that lives as long as the block and writes to a file, never to a pipe."""
        with log.open("wb") as said:
            process = subprocess.Popen(
                argv,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        self.servers.add(process.pid)
        try:
            yield process
        finally:
            _stop(process)
            self.servers.remove(process.pid)

    def first_line(self, argv: Sequence[str]) -> str:
        """What a program says about its version, or an empty text."""
        try:
            with (self.home / "version").open("w+b") as said:
                self.run(argv, stdout=said)
                said.seek(0)
                return said.readline().decode(errors="replace").strip()
        except (OSError, ProgramFailedError):
            return ""

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": PATH,
            "HOME": os.fspath(self.home),
            "LC_ALL": "C.UTF-8",
            "XDG_DATA_HOME": os.fspath(self.home / "share"),
            # For uid 0 skopeo's blob-info cache is the whole machine's, whatever HOME says, and
            # another skopeo's lock on it hangs ours. Any number but 0 makes it look below
            # XDG_DATA_HOME instead.
            "_CONTAINERS_ROOTLESS_UID": "1000",
        }


def wait_for_line(process: "subprocess.Popen[bytes]", log: Path, pattern: bytes) -> str:
    """What the pattern's group matches, once a program that was started has written it. Raises ProgramFailedError."""
    give_up = time.monotonic() + _START_SECONDS
    while not (found := re.search(pattern, log.read_bytes())):
        if process.poll() is not None or time.monotonic() > give_up:
            said = log.read_text(errors="replace")[-600:]
            raise ProgramFailedError(f"{process.args!r} did not start: {said}")
        time.sleep(_POLL_SECONDS)
    return found[1].decode()


def find_program(name: str) -> str | None:
    return shutil.which(name, path=PATH)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _story(argv: Sequence[str], code: int, said: IO[bytes]) -> str:
    said.seek(0)
    text = said.read().decode(errors="replace").strip()
    return f"{Path(argv[0]).name} ended with {code}: {text[-_TAIL:]}"
