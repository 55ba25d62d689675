"""The one place that starts programs: what may be started, environment, time limits, logging, redaction.

`Runner` holds the policy; the `Launcher` below it only starts a process and says how it ended. Tests replace
the launcher. A program that is not in `Tool` cannot be started.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from regwrap.core.errors import ToolError, UsageError
from regwrap.core.interruption import uninterrupted
from regwrap.core.writing import on_file, temporary_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from regwrap.tools.launcher import Launcher, Process


_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not on a plain user's PATH in Debian
_GRACE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.2
_TAIL_BYTES: Final = 4000


class Tool(StrEnum):
    """The audit list: every program that regwrap can start."""

    SKOPEO = "skopeo"
    CURL = "curl"
    UMOCI = "umoci"
    TAR = "tar"
    DOCKER_REGISTRY = "docker-registry"
    SETPRIV = "setpriv"
    UNSHARE = "unshare"
    MOUNT = "mount"
    SH = "sh"
    SSH_KEYGEN = "ssh-keygen"
    PAR2 = "par2"
    OPENSSL = "openssl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program start as a value. Times in seconds; `env` is the child's whole environment beside PATH and LC_ALL.

    `stall` ends the child when it has read and written nothing for so long. `inherit` are file descriptors that
    stay open in the child (locks). `stdin` is what it reads: a file, or bytes, which are never shown; nothing without
    one. `secrets` never appear in `shown`, nor in errors.
    """

    tool: Tool
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    timeout: float | None = None
    stall: float | None = None
    ok_codes: tuple[int, ...] = (0,)
    inherit: tuple[int, ...] = ()
    stdin: Path | bytes | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The only printable form: quoted and redacted."""
        # before the quoting, which would change a secret with a quote in it
        return shlex.join(redacted(arg, self.secrets) for arg in (self.tool, *self.args))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a program ended. `exit_code` is negative for a signal; `stopped` names the limit that ended it, if any."""

    command: Command
    exit_code: int
    stdout: bytes
    stderr: str
    seconds: float
    stopped: str = ""


def redacted(text: str, secrets: tuple[str, ...]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):  # one may be the beginning of another
        if secret:
            text = text.replace(secret, "***")
    return text


@dataclass(slots=True)
class Server:
    """A program that runs until its block ends. `log` is the file that holds its output."""

    process: Process
    log: Path

    def is_alive(self) -> bool:
        return self.process.wait(0) is None

    def ending(self, seconds: float) -> str:
        """How it ended, which is waited for; empty where it still runs."""
        code = self.process.wait(seconds)
        if code is None:
            return ""
        return f"it was terminated by signal {-code}" if code < 0 else f"it ended with exit code {code}"

    def wait(self) -> None:
        """Return only by an interruption. Raises ToolError when the program ends by itself."""
        while self.process.wait(_POLL_SECONDS) is None:
            pass
        said = last_lines(self.log.read_text(encoding="utf-8", errors="replace"))
        raise ToolError("the server exited", detail=said)


@dataclass(slots=True)
class Talk:
    """A program whose output is read while it runs."""

    process: Process
    stdout: IO[bytes]
    stderr: IO[bytes]

    def ending(self) -> str:
        """How it ended, which is waited for a little; and the end of what it said."""
        code = self.process.wait(_GRACE_SECONDS)
        how = "it still runs" if code is None else f"exit code {code}" if code >= 0 else f"signal {-code}"
        return ": ".join(part for part in (how, last_lines(_content(self.stderr).decode(errors="replace"))) if part)


@dataclass(slots=True)
class Runner:
    """Starts programs for everybody else. One per run; safe to use from several threads.

    `log` receives each command line as it starts (redacted). `scratch` is a private directory for output files. Once
    `stopping` is set every child is ended by the thread that waits for it, and no more are started.
    """

    launcher: Launcher
    scratch: Path
    search_path: str
    stopping: threading.Event = field(default_factory=threading.Event)
    log: Callable[[str], None] = lambda _line: None

    def which(self, tool: Tool) -> str | None:
        """The path of the program, or None where it is not installed."""
        return shutil.which(tool, path=self._path())

    def run(self, command: Command) -> RunResult:
        """Start, wait, judge. Raises ToolError for a program that is missing, was stopped by a limit (transient),
        died by a signal, or ended with a code that is not in `ok_codes`."""
        with (
            temporary_file(self.scratch) as stdout,
            # in memory: what a program says of a full disk must not need that disk
            os.fdopen(os.memfd_create("stderr", os.MFD_CLOEXEC), "w+b") as stderr,
        ):
            started = time.monotonic()
            with self._started(command, (stdout, stderr)) as process:
                exit_code, stopped = self._wait(process, command, started)
            result = RunResult(
                command=command,
                exit_code=exit_code,
                stdout=_content(stdout),
                stderr=redacted(_content(stderr).decode(errors="replace"), command.secrets),
                seconds=time.monotonic() - started,
                stopped=stopped,
            )
        _raise_unless_ok(result)
        return result

    @contextmanager
    def serving(self, command: Command, log: Path) -> Iterator[Server]:
        """Run a server for the length of the block; its output goes to the file `log`. Call from the main thread:
        a parent-death signal belongs to the thread that forked."""
        with log.open("wb") as output, self._started(command, (output, output)) as process:
            try:
                yield Server(process=process, log=log)
            finally:
                _end(process)

    @contextmanager
    def talking(self, command: Command) -> Iterator[Talk]:
        """Run a program whose output is read as it comes, for the length of the block; where that ends first, the
        program is ended. It dies with the thread that calls."""
        reading, writing = os.pipe()
        with (
            os.fdopen(reading, "rb", buffering=0) as stdout,
            os.fdopen(os.memfd_create("stderr", os.MFD_CLOEXEC), "w+b") as stderr,
            ExitStack() as stack,
        ):
            with os.fdopen(writing, "wb", buffering=0) as output:  # closed here, so that its end is seen
                process = stack.enter_context(self._started(command, (output, stderr)))
            stack.callback(_end, process)
            yield Talk(process=process, stdout=stdout, stderr=stderr)

    def foreground(self, argv: tuple[str, ...], environment: Mapping[str, str]) -> int:
        """Run the user's own command, with the environment as given; its exit code, 128 + n after signal n.

        Ctrl-C is the command's to handle, as in a shell. Call from the main thread.
        """
        path = shutil.which(argv[0], path=environment.get("PATH"))
        if path is None:
            raise UsageError(f"{argv[0]}: command not found")
        before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
        try:
            process = self.launcher.start_in_front(
                (self.path_of(Tool.SETPRIV), "--pdeathsig", "KILL", path, *argv[1:]), env=environment
            )
            try:
                while (exit_code := process.wait(_POLL_SECONDS)) is None:
                    pass
            except BaseException:
                _end_one(process)
                raise
        finally:
            signal.signal(signal.SIGINT, before)
        return exit_code if exit_code >= 0 else 128 - exit_code

    def _path(self) -> str:
        return os.pathsep.join((self.search_path, *_SBIN))

    @contextmanager
    def _started(self, command: Command, output: tuple[IO[bytes], IO[bytes]]) -> Iterator[Process]:
        """The program; it is ended where the block fails. An interruption comes before the start, or when the process
        is known."""
        process: Process | None = None
        try:
            with uninterrupted():
                process = self._start(command, output)
            yield process
        except BaseException:
            if process is not None:
                _end(process)
            raise

    def _start(self, command: Command, output: tuple[IO[bytes], IO[bytes]]) -> Process:
        # setpriv: the child dies with the thread that started it, so nothing outlives a kill -9 of regwrap
        argv = (self.path_of(Tool.SETPRIV), "--pdeathsig", "KILL", self.path_of(command.tool), *command.args)
        env = {"PATH": self._path(), "LC_ALL": "C", **dict(command.env)}
        self.log(command.shown)
        if self.stopping.is_set():
            raise ToolError(f"{command.tool} was not started: regwrap is stopping")
        try:
            return self.launcher.start(argv, env=env, output=output, inherit=command.inherit, stdin=command.stdin)
        except OSError as error:
            raise ToolError(f"{command.tool} could not be started", detail=f"{error}") from error

    def path_of(self, tool: Tool) -> str:
        """The path of the program. Raises UsageError where it is not installed."""
        path = self.which(tool)
        if path is None:
            raise UsageError(f"{tool} is not installed", hint="run regwrap doctor to see what to install")
        return path

    def _wait(self, process: Process, command: Command, started: float) -> tuple[int, str]:
        progress, since = _progress(process.pid), time.monotonic()
        while True:
            exit_code = process.wait(_POLL_SECONDS)
            if exit_code is not None:
                return exit_code, ""
            now, current = time.monotonic(), _progress(process.pid)
            if current != progress:
                progress, since = current, now
            if command.stall is not None and now - since >= command.stall:
                return _end(process), f"made no progress for {command.stall:g} s"
            if self.stopping.is_set():
                _end(process)
                raise ToolError(f"{command.tool} was stopped: regwrap is stopping")
            if command.timeout is not None and now - started >= command.timeout:
                return _end(process), f"was not done after {command.timeout:g} s"


def _progress(pid: int) -> str:
    # rchar and wchar count every read and write, sockets included (proc(5)); a hung skopeo moves neither.
    with suppress(OSError):
        return Path(f"/proc/{pid}/io").read_text(encoding="ascii").partition("syscr")[0]
    return ""


def _end(process: Process) -> int:
    exit_code = process.wait(0)
    if exit_code is None:
        _signal_group(process.pid, signal.SIGTERM)
        exit_code = process.wait(_GRACE_SECONDS)
    if exit_code is None:
        _signal_group(process.pid, signal.SIGKILL)
        exit_code = process.wait(None)
    return -signal.SIGKILL if exit_code is None else exit_code


def _end_one(process: Process) -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signum)
        if process.wait(_GRACE_SECONDS) is not None:
            return


def _signal_group(pid: int, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def _content(file: IO[bytes]) -> bytes:
    with on_file(file.fileno()):
        file.seek(0)
        return file.read()


def last_lines(stderr: str) -> str:
    """The end of what a program said: the reason stands there, and a whole log would hide it."""
    return stderr.strip()[-_TAIL_BYTES:]


def _raise_unless_ok(result: RunResult) -> None:
    tool, said = result.command.tool, last_lines(result.stderr)
    if result.stopped:
        raise ToolError(f"{tool} {result.stopped} and was stopped", detail=said, transient=True)
    if result.exit_code < 0:
        raise ToolError(f"{tool} was terminated by signal {-result.exit_code}", detail=said, transient=True)
    if result.exit_code not in result.command.ok_codes:
        raise ToolError(f"{tool} failed with exit code {result.exit_code}", detail=said or result.command.shown)
