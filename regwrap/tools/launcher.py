"""How a process is started and waited for: below the runner, which holds the policy. The only importer of `sh`."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Protocol

from regwrap.core.interruption import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import sh

_PR_SET_PDEATHSIG: Final = 1


class Process(Protocol):
    """A started program."""

    @property
    def pid(self) -> int: ...

    def wait(self, timeout: float | None) -> int | None:
        """The exit code (negative: a signal), or None when it still runs after `timeout` seconds."""


class Launcher(Protocol):
    """Starts a process; everything else is the Runner's."""

    def start(
        self,
        argv: tuple[str, ...],
        *,
        env: Mapping[str, str],
        output: tuple[IO[bytes], IO[bytes]],
        inherit: tuple[int, ...],
        stdin: Path | bytes | None = None,
    ) -> Process:
        """`argv[0]` is a path. `output` are the files for stdout and stderr."""

    def start_in_front(self, argv: tuple[str, ...], *, env: Mapping[str, str]) -> Process:
        """With regwrap's own terminal, input and output, and in its process group."""


class ShProcess:
    """A child started by `sh`, waited for through a pidfd so that a time limit costs no polling."""

    def __init__(self, running: sh.RunningCommand) -> None:
        self._process = running.process
        self._exit_code: int | None = None
        self.pid: int = running.pid

    def wait(self, timeout: float | None) -> int | None:
        # once it is reaped, its number may be another process's
        if self._exit_code is None and _ends_within(self.pid, timeout):
            # the kernel says it only once: an interruption between its word and sh's note of it would lose it
            with uninterrupted():
                self._exit_code = int(self._process.wait())
        return self._exit_code


def _ends_within(pid: int, timeout: float | None) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()  # select(2) cannot wait for descriptors above 1023
    poll.register(descriptor, select.POLLIN)
    try:
        return bool(poll.poll(None if timeout is None else timeout * 1000))
    finally:
        os.close(descriptor)


class ShLauncher:
    """The real launcher. `sh`'s defaults that would hurt are switched off here: it fakes a terminal, keeps output
    in memory, prints errors of background commands, and raises on exit codes."""

    def start(
        self,
        argv: tuple[str, ...],
        *,
        env: Mapping[str, str],
        output: tuple[IO[bytes], IO[bytes]],
        inherit: tuple[int, ...],
        stdin: Path | bytes | None = None,
    ) -> Process:
        die_too = _dying_with(os.getpid())

        def in_the_child() -> None:
            die_too()
            # `_pass_fds` only spares them from being closed before the exec, which still closes what Python opened
            # (PEP 446)
            for descriptor in inherit:
                os.set_inheritable(descriptor, True)

        with _input(stdin) as file:
            return _started(
                argv,
                _env=dict(env),
                _in=file,
                _out=output[0],
                _err=output[1],
                _new_group=True,
                _pass_fds=set(inherit),
                _preexec_fn=in_the_child,
            )

    def start_in_front(self, argv: tuple[str, ...], *, env: Mapping[str, str]) -> Process:
        with os.fdopen(os.dup(0), "rb") as stdin, os.fdopen(os.dup(1), "wb") as out, os.fdopen(os.dup(2), "wb") as err:
            return _started(argv, _env=dict(env), _in=stdin, _out=out, _err=err)


def _dying_with(parent: int) -> Callable[[], None]:
    """For the child: it dies with the thread that started it (prctl(2)), from its first moment on. setpriv says so only
    some milliseconds later, and a regwrap that was killed meanwhile would leave a program that waits for its pipes."""
    import ctypes  # most commands start no program

    libc = ctypes.CDLL(None)

    def die_too() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(1)

    return die_too


def _input(data: Path | bytes | None) -> IO[bytes]:
    """Bytes are given in memory: they may have credentials in them."""
    if not isinstance(data, bytes):
        return (data or Path(os.devnull)).open("rb")
    file = os.fdopen(os.memfd_create("stdin", os.MFD_CLOEXEC), "w+b", buffering=0)
    file.write(data)
    file.seek(0)
    return file


class _Argument(str):
    """`sh` encodes arguments strictly; a path may be bytes that are no text."""

    __slots__ = ()

    def __str__(self) -> str:
        return self

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        del encoding, errors
        return str.encode(self, sys.getfilesystemencoding(), "surrogateescape")


def _started(argv: tuple[str, ...], **options: object) -> ShProcess:
    """Raises OSError."""
    import sh  # most commands start no program

    try:
        start: Callable[..., sh.RunningCommand] = sh.Command(argv[0])
        running = start(
            *map(_Argument, argv[1:]),
            **options,
            _tty_out=False,
            _bg=True,
            _bg_exc=False,
            _new_session=False,
            _ok_code=list(range(-64, 256)),
            _return_cmd=True,
        )
    except sh.ForkException as error:  # it has the child's traceback; the last line is the reason
        raise OSError(f"{error}".strip().rpartition("\n")[2].strip()) from error
    return ShProcess(running)
