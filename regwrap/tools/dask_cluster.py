"""A cluster of Dask: found, asked, and left again. The only importer of `distributed`.

What a worker is given to do is a function that it has installed itself, and plain values; nothing of a run goes there.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import signal
import threading
import time
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from regwrap.core.errors import RegwrapError, ToolError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from regwrap.core.executor import Executor

T = TypeVar("T")

TOPIC: Final = "regwrap"
_LOCAL: Final = re.compile(r"local:([1-9][0-9]{0,2})")
_CONNECT_SECONDS: Final = 10
_FIRST_WORKER_SECONDS: Final = 30
_COUNT_SECONDS: Final = 1.0
_LEAVE_SECONDS: Final = 1.0
_END_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.1
_ALONE_SECONDS: Final = 300.0
_INSTALL: Final = "pip install 'regwrap[cluster]' here and on every worker"
_AGAIN: Final = "start it again and rerun the same command: what has arrived is not sent again"


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """`tcp://HOST:PORT` or `tls://HOST:PORT` of a scheduler, or `local:N`: so many processes of this machine."""

    text: str
    local: int = 0

    @classmethod
    def parse(cls, text: str) -> ClusterAddress:
        """Raises UsageError."""
        if match := _LOCAL.fullmatch(text):
            return cls(text, int(match[1]))
        parts = urlsplit(text)
        try:
            is_whole = parts.scheme in {"tcp", "tls"} and bool(parts.hostname) and parts.port is not None
        except ValueError:
            is_whole = False
        if not is_whole or parts.path or parts.username is not None:
            raise UsageError(
                f"--cluster: {text!r} is no cluster",
                hint="give tcp://HOST:PORT or tls://HOST:PORT of a Dask scheduler, or local:N for N processes here",
            )
        return cls(text)

    @property
    def is_safe(self) -> bool:
        """Whether nobody else can listen, or give orders: TLS, or this machine."""
        host = urlsplit(self.text).hostname or ""
        if self.local or self.text.startswith("tls:") or host == "localhost":
            return True
        with suppress(ValueError):
            return ipaddress.ip_address(host).is_loopback
        return False


@dataclass(slots=True, kw_only=True)
class DaskCluster:
    """Connected. `log` hears what a user should know; `at_the_end` is called, and given a moment, before it is left."""

    address: ClusterAddress
    client: Any
    log: Callable[[str], None]
    at_the_end: Callable[[], object] = lambda: None
    _workers: int = 0
    _alone: float = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def executor(self) -> Executor:
        executor: Executor = self.client.get_executor(pure=False)
        return executor

    def everywhere(self, work: Callable[..., T], /, *args: object) -> dict[str, T | BaseException]:
        """`work` once on each worker, with what came of it. Raises ToolError where the scheduler does not answer."""
        try:
            found: dict[str, T | BaseException] = self.client.run(work, *args, on_error="return")
        except (OSError, CancelledError) as error:
            raise self.lost(error) from error
        return found

    def count(self) -> int:
        """Workers, a moment ago."""
        return self._workers

    @property
    def is_there(self) -> bool:
        return self.client.status == "running" and self._alone < _ALONE_SECONDS

    def lost(self, error: BaseException) -> RegwrapError:
        """What to say where an order was not carried out, by nobody's fault here."""
        if type(error).__name__ == "KilledWorker":
            return ToolError(
                "several workers died one after the other with the same blobs",
                detail=f"{error}".partition("\n")[0],
                hint="see the workers' logs (memory is a common cause), or give --jobs fewer",
                transient=True,
            )
        if self._alone >= _ALONE_SECONDS:
            what = f"no worker has been connected to {self.address.text} for {_ALONE_SECONDS:.0f} s"
            return ToolError(what, hint="start workers (dask worker ADDRESS) and rerun: what has arrived stays")
        if self.client.status == "running" and not isinstance(error, CancelledError | OSError):
            words = f"{type(error).__name__}: {error}".partition("\n")[0]
            return ToolError("a worker of the cluster failed", detail=words, hint=_INSTALL)
        return ToolError(
            f"the Dask scheduler {self.address.text} is gone",
            detail=f"{error}".partition("\n")[0] or "the connection was lost",
            hint=_AGAIN,
        )

    def hear(self, heard: Callable[[Mapping[str, Any]], None]) -> None:
        """What workers tell while they work."""
        self.client.subscribe_topic(TOPIC, lambda event: heard(event[1]))

    def watch(self) -> None:
        """Count the workers from now on."""
        self._look()
        threading.Thread(target=self._watch, name="cluster", daemon=True).start()

    def _watch(self) -> None:
        while not self._ended.wait(_COUNT_SECONDS):
            with suppress(Exception):  # whoever waits for an order hears of it
                self._look()

    def _look(self) -> None:
        self._workers = len(self.client.nthreads())
        if self._workers:
            self._alone = 0
            return
        if not self._alone:
            self.log(f"no worker is connected to {self.address.text}; waiting up to {_ALONE_SECONDS:.0f} s for one")
        self._alone += _COUNT_SECONDS

    def leave(self) -> None:
        self._ended.set()
        if self.client.status == "running":
            last = threading.Thread(target=lambda: _quietly(self.at_the_end), daemon=True)
            last.start()
            last.join(_LEAVE_SECONDS)
        _quietly(lambda: self.client.close(timeout=_LEAVE_SECONDS))


def _quietly(work: Callable[[], object]) -> None:
    with suppress(Exception):
        work()


@contextmanager
def connected_cluster(
    address: ClusterAddress, *, place: Path, environment: Mapping[str, str], log: Callable[[str], None]
) -> Iterator[DaskCluster]:
    """For the block. `place` is a private directory for workers that are started here, in this `environment`.

    Raises UsageError where Dask is not installed, and ToolError where no scheduler answers, or it has no workers.
    """
    distributed = _distributed()
    with ExitStack() as stack:
        target = _started(distributed, address, place, environment, stack) if address.local else address.text
        try:
            client = distributed.Client(target, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, TypeError) as error:  # what Dask says where TLS is not configured
            raise _unreachable(address, error) from error
        cluster = DaskCluster(address=address, client=client, log=log)
        stack.callback(cluster.leave)
        try:
            client.wait_for_workers(address.local or 1, timeout=_FIRST_WORKER_SECONDS)
        except TimeoutError as error:
            hint = f"start some: dask worker {address.text}"
            raise ToolError(f"the Dask scheduler {address.text} has no workers", hint=hint) from error
        cluster.watch()
        yield cluster


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise UsageError(f"--cluster needs Dask, which is not installed: {error}", hint=_INSTALL) from error
    for name in logging.root.manager.loggerDict:
        if name.startswith("distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # errors are told by who waits
    return distributed


def _started(
    distributed: Any, address: ClusterAddress, place: Path, environment: Mapping[str, str], stack: ExitStack
) -> Any:
    """Processes of this machine, which end with this one."""
    cluster = distributed.LocalCluster(
        n_workers=address.local,
        threads_per_worker=2,
        processes=True,
        host="127.0.0.1",
        scheduler_port=0,
        dashboard_address=None,
        memory_limit=0,
        local_directory=f"{place}",
        silence_logs=logging.CRITICAL + 1,
        env=dict(environment),
    )
    stack.callback(_end_local, cluster)
    return cluster


def _end_local(cluster: Any) -> None:
    """Dask asks its processes to end, which takes them seconds: nothing is lost where they are killed."""
    nannies = list(cluster.workers.values())
    closing = threading.Thread(target=lambda: _quietly(lambda: cluster.close(timeout=_END_SECONDS)), daemon=True)
    closing.start()
    latest = time.monotonic() + _END_SECONDS
    while closing.is_alive() and time.monotonic() < latest:
        closing.join(_LOOK_SECONDS)
        for nanny in nannies:
            if nanny.pid and closing.is_alive():
                with suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)


def _unreachable(address: ClusterAddress, error: Exception) -> ToolError:
    is_tls = address.text.startswith("tls:") or "TLS" in f"{error}"
    tls = "Dask's TLS is configured in ~/.config/dask/*.yaml or by DASK_DISTRIBUTED__COMM__TLS__… (docs/cluster.md)"
    return ToolError(
        f"no Dask scheduler answers at {address.text}",
        detail=f"{error}".partition("\n")[0],
        hint=tls if is_tls else "start one (dask scheduler), or see the address and the firewall",
    )


class TaskHere:
    """The task that this thread of a worker does."""

    def __init__(self) -> None:
        from distributed import get_worker

        try:
            self._worker: Any = get_worker()
        except ValueError:  # a thread pool does it
            self._worker = None

    @property
    def worker(self) -> str:
        return f"{self._worker.name}" if self._worker else "local"

    @property
    def is_alive(self) -> bool:
        """Whether the worker still belongs to a cluster: its process may go on for a while without one."""
        return self._worker is None or self._worker.status.name in {"running", "paused", "init"}

    def send(self, message: Mapping[str, Any]) -> None:
        if self._worker is not None:
            self._worker.log_event(TOPIC, dict(message))
