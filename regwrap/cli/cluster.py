"""The option --cluster: the workers of a Dask cluster, greeted before they get anything to do."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Self

import typer

from regwrap import __version__
from regwrap.core.counts import counted
from regwrap.core.errors import UsageError

if TYPE_CHECKING:
    from regwrap.cli.session import Session
    from regwrap.cli.worker import Greeting
    from regwrap.core.location import Location
    from regwrap.lists.imagelist import ImageList
    from regwrap.tools.dask_cluster import ClusterAddress, DaskCluster
    from regwrap.transfer.job import Job
    from regwrap.transfer.workers import Workers

ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="tcp://HOST:PORT|tls://…|local:N",
        help="Let the workers of a Dask cluster do it (pip install 'regwrap[cluster]'); local:N starts N here.",
    ),
]
InsecureClusterOption = Annotated[
    bool, typer.Option("--insecure-cluster", help="Use a scheduler of another machine without TLS.")
]
_SAME: Final = "give the client and all workers the same version, configuration and logins: regwrap doctor --cluster"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as it was asked for. `config` is what processes that are started here are given."""

    address: str
    insecure: bool
    config: Path | None

    @classmethod
    def of(cls, address: str | None, config: Path | None, *, insecure: bool) -> Self | None:
        return None if address is None else cls(address, insecure, config)


@contextmanager
def with_cluster(session: Session, job: Job, cluster: Cluster | None, locations: Iterable[Location]) -> Iterator[Job]:
    """The job; with the workers of a cluster, where one is named. `locations` are those whose registries are asked."""
    if cluster is None:
        yield job
        return
    with with_workers(session, cluster, locations) as workers:
        yield replace(job, workers=workers)


@contextmanager
def with_workers(session: Session, cluster: Cluster, locations: Iterable[Location]) -> Iterator[Workers]:
    """Raises UsageError where one of them does not fit."""
    from regwrap.cli.worker import end_run, greet, perform
    from regwrap.transfer.orders import registry_name
    from regwrap.transfer.workers import Workers

    run = secrets.token_hex(6)
    names = tuple({registry_name(location): None for location in locations if location.registry is not None})
    with opened_cluster(session, cluster) as dask:
        dask.at_the_end = lambda: dask.everywhere(end_run, run)
        _check(dask.everywhere(greet, __version__, names))
        workers = Workers(
            run=run,
            executor=dask.executor(),
            perform=perform,
            count=dask.count,
            is_there=lambda: dask.is_there,
            lost=dask.lost,
            stopping=session.runner.stopping,
        )
        dask.hear(workers.heard)
        session.progress.log(f"{cluster.address}: {counted(dask.count(), 'worker')}")
        yield workers


@contextmanager
def opened_cluster(session: Session, cluster: Cluster) -> Iterator[DaskCluster]:
    """Raises UsageError where it is not safe."""
    from regwrap.tools.dask_cluster import ClusterAddress, connected_cluster

    address = ClusterAddress.parse(cluster.address)
    _check_safe(address, session, insecure=cluster.insecure)
    environment = {} if cluster.config is None else {"REGWRAP_CONFIG": f"{cluster.config.absolute()}"}
    place = session.scratch / "dask"
    with connected_cluster(address, place=place, environment=environment, log=session.progress.log) as dask:
        yield dask


def _check_safe(address: ClusterAddress, session: Session, *, insecure: bool) -> None:
    """Dask runs what it is sent: who reaches a scheduler without TLS is every worker's user, with all its logins."""
    if address.is_safe:
        return
    why = "without TLS whoever reaches it runs programs on all workers, with their logins, and on this machine"
    if not insecure:
        raise UsageError(
            f"the scheduler {address.text} is on another machine, and not reached by TLS: {why}",
            hint="give Dask certificates and use tls://, or --insecure-cluster in a network that is yours alone",
        )
    session.progress.log(f"warning: {address.text}: {why}")


def registries_of(job: Job, images: ImageList) -> Iterator[Location]:
    """The places that a sync of these images asks."""
    if job.source is not None:
        yield job.source
    if job.archive.storage is None:
        yield job.archive
    for host in {entry.source.registry for entry in images.entries if hasattr(entry.source, "registry")}:
        if host is not None:
            yield job.location_of(host)


def _check(greetings: Mapping[str, Greeting | BaseException]) -> None:
    """All that is wrong with all workers, before anything is copied."""
    problems = []
    for address, greeting in sorted(greetings.items()):
        if isinstance(greeting, BaseException):
            problems.append(f"{address}: regwrap cannot run there: {greeting}")
        elif greeting.error:
            problems.append(f"{greeting.machine} ({address}): {greeting.error}")
    if problems:
        count = counted(len(problems), "worker")
        raise UsageError(f"{count} of the cluster cannot take part", problems=tuple(problems), hint=_SAME)
