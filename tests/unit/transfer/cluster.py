"""Workers of a cluster in the test's own process: orders go to them as a cluster would send them, and are done."""

import pickle
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from regwrap.core.errors import RegwrapError, ToolError
from regwrap.core.location import Location
from regwrap.transfer.at_worker import fetch_blobs, hash_blobs
from regwrap.transfer.endpoints import Endpoints
from regwrap.transfer.job import Job
from regwrap.transfer.orders import Answer, BlobAnswer, FetchOrder, HashOrder, Order, PushedBack, PushOrder, Refusal
from regwrap.transfer.push_at_worker import OpenedContents, push_blobs
from regwrap.transfer.workers import Workers
from tests.unit.transfer.between import plain


@dataclass
class InProcess:
    """`job` is the workers' own, by their configuration. `before` hears of each order, and may give another for it.
    `came` is what was told of blobs that were coming."""

    job: Job
    before: Callable[[Order], Order] = lambda order: order
    is_wanted: Callable[[], bool] = lambda: True
    orders: list[Order] = field(default_factory=list)
    told: list[Mapping[str, int]] = field(default_factory=list)
    pushed_back: list[PushedBack] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.endpoints = Endpoints(job=self.job, stack=self.stack)
        self.opened = OpenedContents(self.stack)

    def came(self, counts: Mapping[str, int]) -> None:
        self.told.append(counts)

    def perform(self, order: Order) -> Answer:
        order = self.before(pickle.loads(pickle.dumps(order)))
        self.orders.append(order)
        answer = Answer(worker="w1", machine="m1", seconds=1.0, blobs=())
        try:
            answer = replace(answer, blobs=self._done(order), pushed_back=tuple(self.pushed_back))
        except RegwrapError as error:
            answer = replace(answer, refusal=Refusal.of(error))
        self.pushed_back.clear()
        found: Answer = pickle.loads(pickle.dumps(answer))
        return found

    def _done(self, order: Order) -> tuple[BlobAnswer, ...]:
        match order:
            case FetchOrder():
                return fetch_blobs(self.endpoints, order, self)
            case PushOrder():
                return push_blobs(self.endpoints, order, self, self.opened)
            case HashOrder():
                return hash_blobs(order, self)


def by_name(name: str) -> Location:
    """What a worker's configuration makes of a registry's name."""
    return Location(name=name, registry=plain(name.removeprefix("http://")))


def lost(error: BaseException) -> RegwrapError:
    """What a run says where an order was given up."""
    return ToolError(f"the worker is gone: {error}", transient=True)


@contextmanager
def in_process(job: Job, count: int = 2) -> Iterator[tuple[InProcess, Job]]:
    """The workers, and the client's job with them."""
    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        inside = InProcess(replace(job, location_of=by_name), stack=stack)
        workers = Workers(
            run="run-1",
            executor=pool,
            perform=inside.perform,
            count=lambda: count,
            is_there=lambda: True,
            lost=lost,
            stopping=job.retry.stopping,
        )
        yield inside, replace(job, workers=workers)
