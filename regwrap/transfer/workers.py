"""The workers of a cluster as a run sees them: orders go out, answers come back, and what each has done is counted.

Only the client knows what there is to do, and where what is. So a worker that is lost takes nothing with it.
"""

from __future__ import annotations

from concurrent.futures import CancelledError, wait
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import RegwrapError, ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Future
    from threading import Event

    from regwrap.core.executor import Executor
    from regwrap.transfer.orders import Answer, Order

_LOOK_SECONDS: Final = 0.2
_EACH: Final = 2  # orders of a worker: the next is there when one ends


class ClusterError(RegwrapError):
    """The cluster as a whole cannot go on: it ends the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShare:
    """What one worker did. `seconds` of its work, that of orders which ran side by side added up."""

    worker: str
    machine: str
    blobs: int
    bytes_sent: int
    failures: int
    seconds: float

    def and_also(self, other: WorkerShare) -> WorkerShare:
        return replace(
            self,
            blobs=self.blobs + other.blobs,
            bytes_sent=self.bytes_sent + other.bytes_sent,
            failures=self.failures + other.failures,
            seconds=round(self.seconds + other.seconds, 3),
        )


@dataclass(slots=True, kw_only=True)
class Workers:
    """`run` is this run's name. `perform` is what a worker does with an order, and `executor` sends it there. `count`
    says how many workers there are now, `is_there` whether the cluster is; `lost` what to say where an order was given
    up by nobody of this run."""

    run: str
    executor: Executor
    perform: Callable[[Order], Answer]
    count: Callable[[], int]
    is_there: Callable[[], bool]
    lost: Callable[[BaseException], RegwrapError]
    stopping: Event
    _shares: tuple[WorkerShare, ...] = ()
    _hearing: dict[str, Callable[[int], None]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def lanes(self) -> int:
        """How many orders should be out."""
        return _EACH * max(1, self.count())

    def answer(self, order: Order) -> Answer:
        """Raises ToolError when the run is stopped or several workers died of the order, and ClusterError."""
        future = self.executor.submit(self.perform, order)
        while not wait((future,), timeout=_LOOK_SECONDS).done:
            if self.stopping.is_set():
                future.cancel()
                raise _stopped()
            if not self.is_there():
                raise self._ended(CancelledError())
        answer = self._result(future)
        self._count(answer)
        if answer.refusal is not None:
            refusal = answer.refusal.error()
            message = f"worker {answer.worker} on {answer.machine}: {refusal.message}"
            raise ClusterError(message, detail=refusal.detail, hint=refusal.hint)
        return answer

    def _result(self, future: Future[Answer]) -> Answer:
        try:
            return future.result()
        except CancelledError as error:
            if self.stopping.is_set():
                raise _stopped() from error
            raise self._ended(error) from error
        except Exception as error:
            raise self._ended(error) from error

    def _ended(self, error: BaseException) -> RegwrapError:
        """The end of the run, unless the order is worth another try."""
        lost = self.lost(error)
        if isinstance(lost, ToolError) and lost.transient:
            return lost
        return ClusterError(lost.message, detail=lost.detail, hint=lost.hint)

    def heard(self, came: Mapping[str, int]) -> None:
        """What a worker says of blobs that are coming."""
        for digest, count in came.items():
            if hear := self._hearing.get(digest):
                hear(count)

    def hear(self, digest: str, hear: Callable[[int], None] | None) -> None:
        """Who is told of the bytes of a blob; None: nobody any more."""
        if hear is None:
            self._hearing.pop(digest, None)
        else:
            self._hearing[digest] = hear

    @property
    def shares(self) -> tuple[WorkerShare, ...]:
        return self._shares

    def _count(self, answer: Answer) -> None:
        failures = sum(blob.is_failure for blob in answer.blobs)
        done = sum(not blob.again for blob in answer.blobs) - failures
        share = WorkerShare(
            worker=answer.worker,
            machine=answer.machine,
            blobs=done,
            bytes_sent=sum(blob.came for blob in answer.blobs),
            failures=failures,
            seconds=answer.seconds,
        )
        with self._lock:
            self._shares = all_shares((*self._shares, share))


def _stopped() -> ToolError:
    return ToolError("a worker was not waited for: regwrap is stopping")


def all_shares(shares: Iterable[WorkerShare]) -> tuple[WorkerShare, ...]:
    """One for each worker, sorted by machine and name."""
    found: dict[tuple[str, str], WorkerShare] = {}
    for share in shares:
        known = found.get((share.machine, share.worker))
        found[share.machine, share.worker] = share if known is None else known.and_also(share)
    return tuple(share for _key, share in sorted(found.items()))
