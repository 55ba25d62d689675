"""A listener that keeps which steps there were, and how much of each was done."""

from threading import Lock

from regwrap.core.listener import Silent


class Told(Silent):
    """`steps`: what it is, of what (empty: bytes), how much there is to do; `done` of each."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str, int | None]] = []
        self.done: list[int] = []
        self._lock = Lock()

    def expect(self, step: str, expected: int, /) -> None:
        self.count(step, "", expected)

    def count(self, step: str, things: str, total: int | None = None, /) -> None:
        self.steps.append((step, things, total))
        self.done.append(0)

    def on_bytes(self, count: int, /) -> None:
        self.on_things(count)

    def on_things(self, count: int = 1, /) -> None:
        with self._lock:
            self.done[-1] += count
