"""Progress while a command runs: the log, on stderr.

On a terminal one live line shows the whole; elsewhere (a CI log) plain lines come as images end, never a carriage
return. Lines are written whole, under one lock.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TextIO

from regwrap.core.counts import counted
from regwrap.core.text import human_bytes, printable
from regwrap.report.terminal import Folds, Reader, closing, columns, opening, red

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regwrap.core.errors import ToolError
    from regwrap.core.listener import Outlook
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.transfer.plan import Copy
    from regwrap.transfer.run import Copied, Failed

_REDRAW_SECONDS: Final = 0.2
_PLAIN_SECONDS: Final = 15.0
_PACE_SECONDS: Final = 60.0
SHOWN_IMAGES: Final = 3


class Pace:
    """How quickly something is done of late: what went quicker before says nothing of what is left."""

    def __init__(self) -> None:
        self._seen = deque([(time.monotonic(), 0)])

    def pause(self, began: float, seconds: float) -> None:
        """Time that was not the work's."""
        self._seen = deque((moment + seconds, done) for moment, done in self._seen if moment <= began)

    def rate(self, now: float, done: int) -> float:
        """A second, when so much is done `now`."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] < now - _PACE_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return max(0, done - before) / max(0.001, now - since)


class Progress:
    """Hears what a run tells (it is `sync.Events` too) and shows it on `stream`."""

    def __init__(self, stream: TextIO, *, quiet: bool, reader: Reader) -> None:
        self.stream = stream
        self.quiet = quiet
        self.reader = reader
        self.live = reader.live and not quiet
        self.step = ""
        self.expected: int | None = 0
        self.done = 0
        self.things = ""
        self.running: dict[str, float] = {}
        self._failures: dict[str, list[str]] = {}
        self._look: Callable[[], Outlook] | None = None
        self._pace = Pace()
        self._drawn = False
        self._asking = False
        self._section = ""
        self._sections = itertools.count(1)
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @contextmanager
    def shown(self) -> Iterator[Progress]:
        """Show progress for the length of the block."""
        thread = threading.Thread(target=self._redraw, name="progress", daemon=True)
        if not self.quiet:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            if not self.quiet:
                thread.join()
            with self._lock:
                self._clear()
                self._end_section()

    def log(self, text: str) -> None:
        """A line of the log."""
        if not self.quiet:
            self.line(printable(text, keep="\n"))

    def line(self, text: str) -> None:
        """A line that is shown even when quiet: a failure."""
        with self._lock:
            self._clear()
            self._print(text)

    @contextmanager
    def asking(self, question: str) -> Iterator[None]:
        """A line that is shown even when quiet, and nothing below it while the user answers in the block, whose time is
        not the work's."""
        with self._lock:
            self._clear()
            self._print(question)
            self._asking = True
        began = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._pace.pause(began, time.monotonic() - began)
                self._asking = False

    def _print(self, text: str) -> None:
        self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        """Nobody may be listening any more: the work goes on."""
        with suppress(OSError, ValueError):
            self.stream.write(text)
            self.stream.flush()

    def expect(self, step: str, expected: int) -> None:
        with self._lock:
            self._begin_section(step)
            self._begin(step, expected, "")

    def on_bytes(self, count: int) -> None:
        with self._lock:
            self.done += count

    def count(self, step: str, things: str, total: int | None = None) -> None:
        """No section of a CI's log is opened: it may be over in a second."""
        with self._lock:
            self._begin(step, total, things)

    def _begin(self, step: str, expected: int | None, things: str) -> None:
        self.step, self.expected, self.done, self.things = step, expected, 0, things
        self._look, self._pace = None, Pace()

    def on_things(self, count: int = 1) -> None:
        with self._lock:
            self.done += count

    def watch(self, look: Callable[[], Outlook]) -> None:
        with self._lock:
            self._look = look

    def started(self, copy: Copy) -> None:
        with self._lock:
            self.running[str(copy.entry.dest)] = time.monotonic()

    def retrying(self, copy: Copy, attempt: int, error: ToolError) -> None:
        self.log(f"{copy.entry.dest}: attempt {attempt} failed, retrying: {error}")

    def copied(self, outcome: Copied) -> None:
        dest = str(outcome.copy.entry.dest)
        with self._lock:
            self.running.pop(dest, None)
        copied = f"copied {human_bytes(outcome.sent)} in {outcome.seconds:.1f} s"
        self.log(f"{dest}: {copied if outcome.sent else 'linked, all blobs were already there'}")

    def failed(self, outcome: Failed) -> None:
        with self._lock:
            self.running.pop(str(outcome.entry.dest), None)
            alike = self._failures.setdefault(outcome.down or cause_of(outcome), [])
            alike.append(str(outcome.entry.dest))
        text = failure_text(outcome.entry, outcome.error, outcome.hint, outcome.attempts)
        if len(alike) > SHOWN_IMAGES:  # told already, and once more in the end
            text = f"{outcome.entry.dest}: FAILED, as {alike[0]}"
        self.line(red(printable(text, keep="\n"), self.reader))

    def _redraw(self) -> None:
        pause = _REDRAW_SECONDS if self.live else _PLAIN_SECONDS
        while not self._stop.wait(pause):
            text = self.status()
            with self._lock:
                if self._asking:
                    continue
                if text and self.live:
                    self._clear()
                    self._write(text[: columns(self.stream) - 1])
                    self._drawn = True
                elif text:
                    self._print(text)

    def status(self) -> str:
        """In one line how much is done, what remains, the images in work. Empty where nothing is under way."""
        with self._lock:
            done, expected, step, things = self.done, self.expected, self.step, self.things
            running, look, pace = sorted(self.running, key=lambda name: self.running[name]), self._look, self._pace
        if look is not None:
            with suppress(OSError):
                outlook = look()
                done, expected = outlook.done, outlook.done + outlook.left
        if not step or (expected is not None and done >= expected and not running):
            return ""
        with self._lock:
            rate = pace.rate(time.monotonic(), done)
        left = f", {(expected - done) / rate:.0f} s left" if rate and expected and done < expected else ""
        if things:
            of = "" if expected is None else f" of {expected:,}"
            return f"{step}: {done:,}{of} {things}{left}"
        more = f" +{len(running) - SHOWN_IMAGES}" if len(running) > SHOWN_IMAGES else ""
        images = f" [{' '.join(running[:SHOWN_IMAGES])}{more}]" if running else ""
        return f"{step}: {human_bytes(done)} of {human_bytes(expected or 0)}, {human_bytes(rate)}/s{left}{images}"

    def _clear(self) -> None:
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _begin_section(self, step: str) -> None:
        """Each step's lines fold in a CI's log; what failed is told again below them."""
        self._end_section()
        if self.quiet or self.reader.folds is Folds.NONE:
            return
        self._section = f"regwrap_{step}_{os.getpid()}_{next(self._sections)}"
        line = opening(self.reader.folds, self._section, f"regwrap: {step}", seconds=time.time())
        self._print(line)

    def _end_section(self) -> None:
        if self._section:
            self._print(closing(self.reader.folds, self._section, seconds=time.time()))
            self._section = ""


def failure_text(entry: ImageEntry, error: str, hint: str, attempts: int = 1) -> str:
    """An image that failed: how often it was tried, its line in the list, why, what to do."""
    tries = f" (after {counted(attempts, 'attempt')})" if attempts > 1 else ""
    line = f", line {entry.line}" if entry.line else ""
    return f"{entry.dest}: FAILED{tries}{line}: {error}" + (f"\n    {hint}" if hint else "")


def cause_of(failed: Failed) -> str:
    """What was wrong, without the names of the image, and whether a host was known by then to be down."""
    source, dest = failed.entry.source, failed.entry.dest
    text = failed.error.removeprefix(f"{failed.down} is down: ") if failed.down else failed.error
    for name in (f"{source}", f"{dest}", source.repository, dest.repository):
        text = text.replace(name, "…")
    return re.sub(r":(\S+ in …|[0-9a-f]{12,64}\b)", "", text)
