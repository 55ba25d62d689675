"""The command doctor, for each worker of a cluster: the same questions there, and whether it is as the client."""

from __future__ import annotations

import platform
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap import __version__
from regwrap.cli.cluster import Cluster, opened_cluster
from regwrap.cli.doctor import examined
from regwrap.cli.session import Session, opened_session
from regwrap.cli.settings import load
from regwrap.commands.doctor import WorkerCheck
from regwrap.core.errors import RegwrapError

if TYPE_CHECKING:
    from regwrap.commands.doctor import DoctorReport
    from regwrap.config.load import Config

_NEEDED: Final = "sync"  # what a worker does is a part of it


def examined_workers(session: Session, settings: Config, cluster: Cluster) -> tuple[WorkerCheck, ...]:
    """One for each, sorted by its address."""
    location = settings.archive.storage
    archive = None if location is None else (f"{location}", _identity(location))
    hosts = {location.name: location.registry.host for location in settings.registries if location.registry is not None}
    with opened_cluster(session, cluster) as dask:
        found = dask.everywhere(examine_here, __version__, archive, hosts)
    return tuple(_check(address, check) for address, check in sorted(found.items()))


def _check(address: str, found: WorkerCheck | BaseException) -> WorkerCheck:
    if isinstance(found, WorkerCheck):
        return replace(found, worker=address)
    problem = f"regwrap cannot run there: {found}; install regwrap[cluster] for the Python of the worker"
    return WorkerCheck(worker=address, machine="-", problems=(problem,))


def examine_here(version: str, archive: tuple[str, int] | None, hosts: dict[str, str]) -> WorkerCheck:
    """Called on each worker. `archive` is the client's storage, with what tells it from another directory; `hosts` are
    the registries that names mean to the client."""
    own = WorkerCheck(worker="", machine=socket.gethostname(), regwrap=__version__, python=platform.python_version())
    try:
        settings = load(None)
        with opened_session(quiet=True) as session:
            report = examined(session, settings)
    except (RegwrapError, OSError) as error:
        return replace(own, problems=(f"{error}",))
    found = {check.name: check.found for check in report.checks}
    return replace(
        own,
        skopeo=found["skopeo"],
        curl=found["curl"],
        logins=sum(registry.ok for registry in report.registries),
        problems=(
            *_version_problems(version),
            *_tool_problems(report),
            *_archive_problems(archive),
            *_name_problems(settings, hosts),
            *(f"{one.name}: {one.access}; {one.advice}" for one in report.registries if not one.ok),
        ),
    )


def _version_problems(version: str) -> list[str]:
    same = version == __version__
    return [] if same else [f"regwrap {__version__}, and the client has {version}; install the same version"]


def _tool_problems(report: DoctorReport) -> list[str]:
    command = next(command for command in report.commands if command.command == _NEEDED)
    return [f"{what}; {how}" for what, how in zip(command.missing, command.how, strict=True)]


def _archive_problems(archive: tuple[str, int] | None) -> list[str]:
    if archive is None or not archive[1]:  # a registry, or not made yet
        return []
    path, identity = archive
    here = _identity(Path(path))
    if not here:
        return [f"{path} is not there; mount it as on the client, or use a registry"]
    return [] if here == identity else [f"{path} is another directory than the client's; mount the same one"]


def _name_problems(settings: Config, hosts: dict[str, str]) -> list[str]:
    mine = {location.name: location.registry.host for location in settings.registries if location.registry is not None}
    return [
        f"{name} is {mine.get(name, 'unknown')}, and {host} for the client; give it the same configuration"
        for name, host in hosts.items()
        if mine.get(name) != host
    ]


def _identity(path: Path) -> int:
    """The same on all machines that mount it; 0 where there is nothing."""
    return path.stat().st_ino if path.is_dir() else 0
