"""What a worker of a cluster runs: an order of a client, with the configuration and the logins of this machine.

A run has its programs and connections here from its first order on, until the client says that it is over.
"""

from __future__ import annotations

import platform
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

from regwrap import __version__
from regwrap.cli.session import opened_session
from regwrap.cli.settings import load
from regwrap.config.locations import listed_location
from regwrap.core.errors import RegwrapError, UsageError
from regwrap.tools.dask_cluster import TaskHere
from regwrap.tools.retry import Retry
from regwrap.transfer.at_worker import endpoint_of, fetch_blobs, hash_blobs
from regwrap.transfer.endpoints import Endpoints
from regwrap.transfer.orders import Answer, BlobAnswer, FetchOrder, HashOrder, PushedBack, PushOrder, Refusal
from regwrap.transfer.push_at_worker import OpenedContents, push_blobs

if TYPE_CHECKING:
    from regwrap.transfer.orders import Order, RegistryName


@dataclass(slots=True, kw_only=True)
class _Run:
    """One client's run on this worker."""

    name: str
    endpoints: Endpoints
    stack: ExitStack
    pushed_back: list[PushedBack]
    opened: OpenedContents
    orders: int = 0

    @property
    def stopping(self) -> threading.Event:
        """Set once it is over."""
        return self.endpoints.job.stopping


_RUNS: Final[dict[str, _Run]] = {}
_LOCK: Final = threading.Lock()


def perform(order: Order) -> Answer:
    """Called by Dask, in a thread of the worker. What fails is told, not raised."""
    task, started = TaskHere(), time.monotonic()
    answer = Answer(worker=task.worker, machine=socket.gethostname(), seconds=0, blobs=())
    try:
        _check_version(order.version)
        run = _begun(order.run)
    except (RegwrapError, OSError) as error:
        return replace(answer, refusal=_refusal(error))
    try:
        blobs = _done(run, order, _Around(task=task, run=run))
        answer = replace(answer, blobs=blobs, pushed_back=_pushed_back(run))
    except (RegwrapError, OSError) as error:
        answer = replace(answer, refusal=_refusal(error))
    finally:
        _leave(run)
    return replace(answer, seconds=round(time.monotonic() - started, 3))


def end_run(name: str) -> None:
    """The client's run is over, or was interrupted: what is still done for it ends at once."""
    with _LOCK:
        run = _RUNS.get(name)
        if run is None:
            return
        run.stopping.set()
        is_idle = not run.orders
        if is_idle:
            del _RUNS[name]
    if is_idle:
        run.stack.close()


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a worker says of itself. `hosts` are the registries that names mean here."""

    version: str
    python: str
    machine: str
    hosts: Mapping[str, str]
    error: str = ""


def greet(version: str, names: tuple[RegistryName, ...]) -> Greeting:
    """Called before a run, on every worker."""
    hosts, error = {}, ""
    try:
        _check_version(version)
        run = _new("greeting")
        with run.stack:
            for name in names:
                hosts[name.asked] = endpoint_of(run.endpoints, name).registry.host
    except (RegwrapError, OSError) as raised:
        error = f"{raised}"
    return Greeting(__version__, platform.python_version(), socket.gethostname(), hosts, error)


def _refusal(error: RegwrapError | OSError) -> Refusal:
    if isinstance(error, RegwrapError):
        return Refusal.of(error)
    return Refusal(kind="other", message=f"{error.filename or 'the disk'}: {error.strerror or error}")


def _check_version(version: str) -> None:
    if version != __version__:
        raise UsageError(
            f"regwrap {__version__} is installed here, and the client is {version}",
            hint="install the same version on the client and on all workers; regwrap doctor --cluster shows them",
        )


def _begun(name: str) -> _Run:
    """Runs of others that have nothing to do now end: their client may be gone."""
    with _LOCK:
        run = _RUNS.get(name)
        idle = [other for other in _RUNS.values() if other.name != name and not other.orders]
        for other in idle:
            del _RUNS[other.name]
        if run is None:
            run = _RUNS[name] = _new(name)
        run.orders += 1
    for other in idle:
        other.stack.close()
    return run


def _leave(run: _Run) -> None:
    with _LOCK:
        run.orders -= 1
        is_over = run.stopping.is_set() and not run.orders
        if is_over:
            _RUNS.pop(run.name, None)
    if is_over:
        run.stack.close()


def _new(name: str) -> _Run:
    """By this machine's configuration alone. What failed is tried again by the client, who sees the whole."""
    stack, pushed_back = ExitStack(), list[PushedBack]()
    session = stack.enter_context(opened_session(quiet=True))
    settings = load(None)
    job = session.job(settings)
    job = replace(
        job,
        location_of=lambda text: listed_location(text, settings, base=Path.cwd(), home=Path.home())[0],
        retry=Retry(replace(job.retry.policy, attempts=1, outage=0), job.stopping),
    )
    endpoints = Endpoints(
        job=job, stack=stack, on_pushed_back=lambda host, text: pushed_back.append(PushedBack(host, text))
    )
    opened = OpenedContents(stack)
    return _Run(name=name, endpoints=endpoints, stack=stack, pushed_back=pushed_back, opened=opened)


def _pushed_back(run: _Run) -> tuple[PushedBack, ...]:
    with _LOCK:
        found = tuple(run.pushed_back)
        run.pushed_back.clear()
    return found


@dataclass(slots=True, kw_only=True)
class _Around:
    task: TaskHere
    run: _Run

    def is_wanted(self) -> bool:
        return self.task.is_alive and not self.run.stopping.is_set()

    def came(self, counts: Mapping[str, int]) -> None:
        self.task.send({"run": self.run.name, "came": dict(counts)})


def _done(run: _Run, order: Order, around: _Around) -> tuple[BlobAnswer, ...]:
    match order:
        case FetchOrder():
            return fetch_blobs(run.endpoints, order, around)
        case PushOrder():
            return push_blobs(run.endpoints, order, around, run.opened)
        case HashOrder():
            return hash_blobs(order, around)
        case _:
            assert_never(order)
