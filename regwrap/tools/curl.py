"""curl, hermetic: one start fetches many files of one server, so many at a time, each through a pipe of its own.

Nothing of the user's counts (`--disable` comes first; the environment is built from nothing), and addresses and
credentials come by its standard input. It writes into named pipes of a private directory, and the kernel moves the
bytes from there to where they belong (splice(2)): so of a file no more is taken than its size, whatever comes.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.core.counts import counted
from regwrap.core.errors import ToolError
from regwrap.core.pipes import PIPE_BYTES, widen
from regwrap.core.writing import name_file, write_all_at
from regwrap.tools.runner import Command, Runner, Tool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from regwrap.core.location import Timeouts
    from regwrap.tools.runner import Talk

_LOOK_SECONDS: Final = 0.2
_MARGIN_SECONDS: Final = 10.0  # curl itself ends what stalls, by its speed in the last five seconds
_LEAVE_SECONDS: Final = 1.0  # what is nearly there is the next run's
_MOST_REDIRECTS: Final = 5
_OUTCOME_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What is at `url`, from `offset` on; it has `size` bytes in all. `key` is a file's name. `authorization`: a
    header's value, or empty; it goes to this host and to no other that the answer leads to. `place`: where its first
    byte belongs in the file that it is written to."""

    key: str
    url: str
    size: int
    offset: int = 0
    authorization: str = field(default="", repr=False)
    place: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How a server is reached: proxies' variables for curl, and its options for TLS."""

    environment: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadOutcome:
    """What curl says of one download. `exit_code` is what it would have ended with for this one alone; `url` is where
    the answer came from; `status` 0: none came. `excess`: the server sent more than the size."""

    key: str
    exit_code: int
    status: int = 0
    message: str = ""
    url: str = ""
    media_type: str = ""
    retry_after: str = ""
    excess: bool = False


class Receiver(Protocol):
    """Who hears how the downloads of one start go, from the thread that called."""

    def opened(self, key: str) -> int:
        """The first byte is there: a descriptor to write to, which is closed here."""

    def came(self, key: str, count: int) -> None:
        """So many bytes more were written."""

    def is_wanted(self) -> bool:
        """Whether the rest still is."""

    def ended(self, outcome: DownloadOutcome) -> None:
        """That download has ended; nothing more of it comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curl:
    """Starts curl. `scratch` is a private directory of this run."""

    runner: Runner
    scratch: Path
    timeouts: Timeouts

    def fetch(self, downloads: Sequence[Download], route: Route, receiver: Receiver, *, parallel: int) -> None:
        """Fetch all of them, `parallel` at a time, in their order. It dies with the thread that calls.

        Raises ToolError where curl itself fails; those that have not ended by then have no outcome, and what came of
        them was written.
        """
        with ExitStack() as stack:
            place = Path(tempfile.mkdtemp(prefix="curl-", dir=self.scratch))
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            pipes = {one.key: _Pipe(download=one, receiver=receiver, position=one.offset) for one in downloads}
            for pipe in pipes.values():
                stack.callback(pipe.close)
                pipe.make(place)
            talk = stack.enter_context(self.runner.talking(self._command(downloads, route, place, parallel)))
            _Pump(talk=talk, pipes=pipes, receiver=receiver, curl=self).run()

    def _command(self, downloads: Sequence[Download], route: Route, place: Path, parallel: int) -> Command:
        sections = (self._section(one, route, place) for one in downloads)
        return Command(
            tool=Tool.CURL,
            args=(
                "--disable",
                "--parallel", "--parallel-immediate", "--parallel-max", f"{parallel}",
                "--silent", "--show-error",
                "--config", "-",
            ),
            env=route.environment,
            stdin="next\n".join(sections).encode("utf-8", "surrogateescape"),
            secrets=tuple({one.authorization for one in downloads if one.authorization}),
        )  # fmt: skip

    def _section(self, one: Download, route: Route, place: Path) -> str:
        """Nothing is inherited from the section before."""
        seconds = self.timeouts
        options = (
            ("url", one.url),
            ("output", f"{place / one.key}"),
            *((("header", f"Authorization: {one.authorization}"),) if one.authorization else ()),
            *((("continue-at", f"{one.offset}"),) if one.offset else ()),
            ("fail", ""),
            ("silent", ""),
            ("show-error", ""),
            ("globoff", ""),
            ("http1.1", ""),  # one connection for each: several are faster where the way is long
            ("location", ""),
            ("max-redirs", f"{_MOST_REDIRECTS}"),
            ("proto", "=http,https"),
            ("proto-redir", "=http,https"),
            ("connect-timeout", f"{min(seconds.request, seconds.stall):g}"),
            ("speed-limit", "1"),
            ("speed-time", f"{max(1, round(seconds.stall))}"),
            ("max-time", f"{seconds.copy:g}"),
            *route.options,
            ("write-out", r"%{json} %header{retry-after}\n"),
        )
        return "".join(f"{name} = {_quoted(value)}\n" if value else f"{name}\n" for name, value in options)


def _quoted(value: str) -> str:
    r"""As curl reads it in a file: `\n` stays an escape of write-out."""
    if value.startswith("%{json}"):
        return f'"{value}"'
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        raise ToolError(f"curl cannot be given {value!r}")
    return f'"{escaped}"'


@dataclass(slots=True, kw_only=True)
class _Pipe:
    """The way of one download: a named pipe that curl writes to, then the file that `receiver` opens."""

    download: Download
    receiver: Receiver
    position: int
    reading: int = -1
    writing: int = -1
    excess: bool = False

    def make(self, place: Path) -> None:
        path = place / self.download.key
        os.mkfifo(path, 0o600)
        # before curl opens it, which would wait for a reader
        self.reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def receive(self) -> int | None:
        """Move what is there; how many bytes. None: curl has closed it, or it has had enough."""
        left = self.download.size - self.position
        if left == 0:
            self.excess = bool(os.read(self.reading, 1))
            return None
        if self.writing < 0:
            self._open()
        count = self._spliced(min(left, PIPE_BYTES))
        self.position += count
        if count:
            self.receiver.came(self.download.key, count)
        return count or None

    def drain(self) -> None:
        """What curl has left in it when it closed it."""
        with suppress(BlockingIOError):
            while self.reading >= 0 and self._has_bytes() and self.receive():
                pass

    def close(self) -> None:
        """What has come is kept: after an interruption the next run goes on behind it."""
        self.drain()
        self.stop_reading()
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def stop_reading(self) -> None:
        """curl then ends this download, as nobody takes more of it."""
        if self.reading >= 0:
            os.close(self.reading)
            self.reading = -1

    def _has_bytes(self) -> bool:
        poll = select.poll()
        poll.register(self.reading, select.POLLIN)
        return any(event & select.POLLIN for _descriptor, event in poll.poll(0))

    def _open(self) -> None:
        self.writing = self.receiver.opened(self.download.key)
        widen(self.reading)

    def _spliced(self, most: int) -> int:
        to = self.download.place + self.position
        try:
            return os.splice(self.reading, self.writing, most, offset_dst=to, flags=os.SPLICE_F_NONBLOCK)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that has no splice
                name_file(error, self.writing)
                raise
        data = os.read(self.reading, most)
        write_all_at(self.writing, data, to)
        return len(data)


@dataclass(slots=True, kw_only=True)
class _Pump:
    """Moves bytes and hears outcomes until each download has one."""

    talk: Talk
    pipes: dict[str, _Pipe]
    receiver: Receiver
    curl: Curl
    _poll: select.poll = field(default_factory=select.poll)
    _said: bytes = b""
    _needless_at: float = 0
    _has_ended: bool = False

    def run(self) -> None:
        output, waiting = self.talk.stdout.fileno(), dict(self.pipes)
        by_descriptor = {pipe.reading: pipe for pipe in self.pipes.values()}
        for descriptor in (output, *by_descriptor):
            self._poll.register(descriptor, select.POLLIN)
        timeouts = self.curl.timeouts
        patience = timeouts.stall + _MARGIN_SECONDS
        latest = time.monotonic() + patience
        while waiting and not self._has_ended:
            ready = [descriptor for descriptor, _event in self._poll.poll(_LOOK_SECONDS * 1000)]
            self._go_on(latest, patience)
            for descriptor in ready:
                if descriptor != output:
                    self._receive(by_descriptor[descriptor])
            if output in ready:
                self._hear(waiting)
            latest = time.monotonic() + patience if ready else latest
        if waiting:
            raise ToolError(
                f"curl ended before {len(waiting)} of {counted(len(self.pipes), 'download')}",
                detail=self.talk.ending(),
                transient=True,
            )

    def _go_on(self, latest: float, patience: float) -> None:
        if self.curl.runner.stopping.is_set():
            raise ToolError("curl was stopped: regwrap is stopping")
        if self.receiver.is_wanted():
            self._needless_at = time.monotonic() + _LEAVE_SECONDS
        elif time.monotonic() >= self._needless_at:
            raise ToolError("curl was stopped: nobody needs what is left")
        if time.monotonic() >= latest:
            raise ToolError(f"curl made no progress for {patience:g} s and was stopped", transient=True)

    def _receive(self, pipe: _Pipe) -> None:
        if pipe.reading < 0:
            return
        with suppress(BlockingIOError):
            if pipe.receive() is None:
                self._poll.unregister(pipe.reading)
                if pipe.excess:
                    pipe.stop_reading()

    def _hear(self, waiting: dict[str, _Pipe]) -> None:
        """Lines of outcomes; of the last a part may be there."""
        data = os.read(self.talk.stdout.fileno(), _OUTCOME_BYTES)
        self._has_ended = not data
        *lines, self._said = (self._said + data).split(b"\n")
        if len(self._said) > _OUTCOME_BYTES:
            raise _not_understood(self._said)
        for line in lines:
            outcome = parse_outcome(line)
            pipe = waiting.pop(outcome.key, None)
            if pipe is None:
                raise _not_understood(line)
            if pipe.reading >= 0:
                with suppress(KeyError):
                    self._poll.unregister(pipe.reading)
            pipe.close()
            self.receiver.ended(replace(outcome, excess=pipe.excess))


def parse_outcome(line: bytes) -> DownloadOutcome:
    """A line of `write-out`: curl's JSON, then the header Retry-After. Raises ToolError."""
    text = line.decode(errors="replace")
    try:
        document, end = json.JSONDecoder().raw_decode(text)
        return DownloadOutcome(
            key=Path(_text(document, "filename_effective")).name,
            exit_code=_number(document, "exitcode"),
            status=_number(document, "response_code"),
            message=_text(document, "errormsg"),
            url=_text(document, "url_effective"),
            media_type=_text(document, "content_type"),
            retry_after=text[end:].strip(),
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise _not_understood(line) from error


def _text(document: Mapping[str, object], name: str) -> str:
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) else ""


def _number(document: Mapping[str, object], name: str) -> int:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, int):
        raise TypeError(f"{name} is no number")
    return value


def _not_understood(line: bytes) -> ToolError:
    return ToolError(
        "curl said something that cannot be read", detail=line[:200].decode(errors="replace"), transient=True
    )
