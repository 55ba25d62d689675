"""The endpoints of a run as objects, each made once: a registry's connections are kept, a storage is served once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

from regwrap.bundle.by_repository import LocalSource, StorageSource
from regwrap.core.archive_ref import ArchiveRef
from regwrap.core.counts import counted
from regwrap.core.errors import UsageError
from regwrap.core.location import Location, Registry
from regwrap.lists.imagelist import ImageEntry, ImageList, need_source
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.registry.probe import Probe
from regwrap.storage.store import Storage, real_root
from regwrap.tools.rate_limit import HostLimiters
from regwrap.tools.scratch import SKOPEO_HOME
from regwrap.tools.skopeo import Skopeo
from regwrap.transfer.archives import Archives
from regwrap.transfer.job import QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

    from regwrap.bundle.image_set import ImageSet
    from regwrap.transfer.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How a storage is written to. Programs that write inherit the `descriptor` of its lock. `hashed`: a blob that is
    there counts once its bytes were hashed, else by its size.

    With `upper` the storage is only read, for one run: blobs go to `upper`, links to the storage's root. A crash throws
    both away, so nothing has to be on the disk early, and no order has to be kept.
    """

    descriptor: int | None = None
    upper: Path | None = None
    hashed: bool = True


@dataclass(slots=True, kw_only=True)
class Endpoints:
    """The two ends as objects, each made once: a registry's connections are kept, a storage is served once."""

    job: Job
    stack: ExitStack
    on_pushed_back: Callable[[str, str], None] = lambda _host, _retry_after: None
    _limiters: HostLimiters | None = None
    _skopeo: Skopeo | None = None
    _known: dict[Location, RegistryEndpoint | StorageSource] = field(default_factory=dict)
    _archives: Archives = field(init=False)
    _served: dict[str, Registry] = field(default_factory=dict)
    _noted: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._archives = Archives(skopeo=self.skopeo, directory=self.job.scratch / "archives")

    def check_sources(self, images: ImageList) -> None:
        """Every line must say where it comes from, or --source must. Makes all ends, in the main thread."""
        lines = need_source(images)
        if lines and self.job.source is None:
            where = "\n".join(f"{entry.at(images.name)}: {entry.text}" for entry in lines[:10])
            raise UsageError(
                f"{counted(len(lines), 'line names', 'lines name')} no registry, and no source is configured",
                detail=where,
                hint="give --source HOST[:PORT] (or NAME, or a storage's DIR), or source: in the configuration",
            )
        for entry in images.entries:
            if not isinstance(entry.source, ArchiveRef):
                self.source_of(entry)

    @property
    def limiters(self) -> HostLimiters:
        """How hard each host may be asked, common to the probes and to skopeo."""
        if self._limiters is None:
            retry = self.job.retry
            self._limiters = HostLimiters(
                max_pause=retry.policy.max_wait,
                stopping=retry.stopping,
                outages=retry.outages,
                on_pushed_back=self.on_pushed_back,
            )
        return self._limiters

    def source_of(self, entry: ImageEntry) -> RegistryEndpoint | StorageSource | ImageSet:
        if isinstance(entry.source, ArchiveRef):
            return self._archives.image_set_of(entry.source)
        if entry.source.registry is not None:
            return self.of(self.job.location_of(entry.source.registry))
        if self.job.source is None:
            raise UsageError(f"{entry.where} names no registry")
        return self.of(self.job.source)

    def of(self, location: Location) -> RegistryEndpoint | StorageSource:
        if location not in self._known:
            self._known[location] = self._make(location)
        return self._known[location]

    def registry(self, location: Location) -> RegistryEndpoint:
        """Of a place the registry, even where its directory is known. Raises UsageError where it has none."""
        end = self.of(replace(location, storage=None))
        if not isinstance(end, RegistryEndpoint):
            raise UsageError(f"{location.name} is not a registry")
        return end

    def location_of(self, end: RegistryEndpoint | StorageSource) -> Location:
        """What an end was made of."""
        return next(location for location, known in self._known.items() if known is end)

    def _make(self, location: Location) -> RegistryEndpoint | StorageSource:
        if location.storage is not None:
            return StorageSource(name=str(location.storage), storage=Storage(real_root(location.storage)))
        if location.registry is None:
            what = "can only be the history of package" if location.image else "has neither a url nor a storage"
            raise UsageError(f"{location.name} {what}")
        job = self.job
        probe = Probe(
            registry=location.registry,
            timeout=job.timeouts.request,
            connections=max(job.jobs, QUESTIONS),
            environment=job.environment,
            limiter=self.limiters.of(location.registry),
            note=self._note,
            ask_helper=self.skopeo().helpers.known,
        )
        self.stack.callback(probe.close)
        return RegistryEndpoint(registry=location.registry, probe=probe, skopeo=self.skopeo())

    def _note(self, text: str) -> None:
        with self._lock:
            is_new = text not in self._noted
            self._noted.add(text)
        if is_new:
            self.job.listener.log(f"note: {text}")

    def storages(self) -> tuple[StorageSource, ...]:
        return tuple(end for end in self._known.values() if isinstance(end, StorageSource))

    def skopeo(self) -> Skopeo:
        if self._skopeo is None:
            home = self.job.scratch / SKOPEO_HOME
            home.mkdir(exist_ok=True)
            job = self.job
            self._skopeo = Skopeo(
                runner=job.runner,
                home=home,
                timeouts=job.timeouts,
                environment=job.environment,
                helper_environment=job.helper_environment,
                limiters=self.limiters,
            )
        return self._skopeo

    def served(self, entry: ImageEntry) -> Registry:
        """The registry that skopeo reads an entry from."""
        source = self.source_of(entry)
        if isinstance(source, RegistryEndpoint):
            return source.registry
        return self.loopback(source)

    def loopback(self, contents: LocalSource) -> Registry:
        """A registry on loopback that serves `contents`, from the first time on that somebody needs it."""
        with self._lock:
            if contents.name not in self._served:
                from regwrap.registry.server import ServeOptions, served_contents  # imports a server of HTTP

                server = self.stack.enter_context(served_contents(contents, ServeOptions()))
                self._served[contents.name] = Registry(host=server.host, tls_verify=False, plain_http=True)
            return self._served[contents.name]
