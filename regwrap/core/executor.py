"""Who works on what is submitted: threads of this process, or the processes of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

P = ParamSpec("P")
T = TypeVar("T")


class Executor(Protocol):
    """As `concurrent.futures` has it: what it gives out may be cancelled, and waited for with `wait` and
    `as_completed`. `ThreadPoolExecutor` is one, and so is a Dask client's executor."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
