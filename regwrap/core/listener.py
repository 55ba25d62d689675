"""Who hears how a run goes: a Protocol that every step can take, whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_T = TypeVar("_T")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Outlook:
    """Of a step's bytes those that are done, and those that are left as far as one knows by now. What turns out to be
    there already, or not to come any more, is neither."""

    done: int
    left: int


class Listener(Protocol):
    """Called from several threads."""

    def log(self, text: str, /) -> None:
        """A line of the log."""

    def expect(self, step: str, expected: int, /) -> None:
        """A step begins and has `expected` bytes to do."""

    def on_bytes(self, count: int, /) -> None:
        """So many bytes more are done."""

    def count(self, step: str, things: str, total: int | None = None, /) -> None:
        """A step begins that has `total` of `things` (images looked at) to do; None: nobody knows how many."""

    def on_things(self, count: int = 1, /) -> None:
        """So many of them are done."""

    def watch(self, look: Callable[[], Outlook], /) -> None:
        """From now on the step's bytes are what `look` says, until the next one begins."""


class Silent:
    """A Listener for work that nobody watches."""

    def log(self, text: str, /) -> None:
        pass

    def expect(self, step: str, expected: int, /) -> None:
        pass

    def on_bytes(self, count: int, /) -> None:
        pass

    def count(self, step: str, things: str, total: int | None = None, /) -> None:
        pass

    def on_things(self, count: int = 1, /) -> None:
        pass

    def watch(self, look: Callable[[], Outlook], /) -> None:
        pass


SILENT: Final = Silent()


def telling(listener: Listener, work: Callable[[_T], _Result]) -> Callable[[_T], _Result]:
    """`work`; that it has ended for one more thing is told, whatever came of it."""

    def told(thing: _T) -> _Result:
        try:
            return work(thing)
        finally:
            listener.on_things()

    return told


def counted_by(listener: Listener, things: Iterable[_T]) -> Iterator[_T]:
    """The things, each told when the next one is wanted."""
    for thing in things:
        yield thing
        listener.on_things()
