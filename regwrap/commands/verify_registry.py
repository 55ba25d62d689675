"""Check a registry by HTTP: every listed image, each of its platforms, every blob by HEAD; or by its bytes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from regwrap.bundle.examine import VerifyReport
from regwrap.bundle.inventory import FoundImage, Inventory
from regwrap.commands.list_registry import list_location
from regwrap.core.closure import Closure, check_platform, closure_of, shipped_platforms
from regwrap.core.errors import ImagesFailedError, IntegrityError, ToolError
from regwrap.core.listener import telling
from regwrap.core.model import Digest, subject_of_tag
from regwrap.core.pool import map_in_order
from regwrap.lists.naming import Naming, renamed
from regwrap.registry.credentials import UnsureError
from regwrap.storage.hashing import hashed
from regwrap.transfer.endpoints import Endpoints

if TYPE_CHECKING:
    from regwrap.core.location import Location
    from regwrap.core.manifest import Descriptor
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.registry.endpoint import RegistryEndpoint
    from regwrap.tools.rate_limit import HostLimiters
    from regwrap.transfer.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryCheck:
    """`prefix` stands before all repositories there. `exact`: there are no other images below it. `hashed`: every
    blob is fetched and hashed."""

    location: Location
    prefix: str
    exact: bool
    hashed: bool

    @property
    def target(self) -> str:
        host = self.location.registry.host if self.location.registry else self.location.name
        return f"{host}/{self.prefix}" if self.prefix else host


@dataclass(slots=True, kw_only=True)
class _Checked:
    """What came of one image. `sources`: the repository that each of its blobs can be fetched from."""

    image: FoundImage | None = None
    problems: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    sizes: dict[Digest, int] = field(default_factory=dict)
    damaged: set[Digest] = field(default_factory=set)
    sources: dict[Digest, tuple[str, Descriptor]] = field(default_factory=dict)


def verify_registry(job: Job, check: RegistryCheck, entries: tuple[ImageEntry, ...]) -> VerifyReport:
    """The images of the list, as the registry has them. Raises ToolError where it does not say. Call from the main
    thread."""
    with ExitStack() as stack:
        endpoints = Endpoints(job=job, stack=stack)
        end = endpoints.registry(check.location)
        named = renamed(entries, Naming(prefix=check.prefix))
        looking = _Looking(job=job, end=end)
        job.listener.count("verify", "images looked at", len(entries))
        found = job.ask(telling(job.listener, looking.look), zip(entries, named, strict=True))
        wrong = looking.hash_blobs(endpoints, found) if check.hashed else {}
        known = {digest for checked in found for digest in checked.sizes}
        others = _others(job, check, named, known) if check.exact else ()
    return _report(check, found, wrong, others)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looking:
    job: Job
    end: RegistryEndpoint

    def look(self, pair: tuple[ImageEntry, ImageEntry]) -> _Checked:
        """An entry of the list, and the same with its name there."""
        entry, there = pair
        try:
            return self.job.retry.call(lambda: self._look(entry, there))
        except ImagesFailedError as error:
            return _Checked(differences=[f"{entry.dest}: {error}"])
        except IntegrityError as error:
            return _Checked(problems=[f"{entry.dest}: {error}"])
        except UnsureError as error:
            raise ToolError(f"{there.dest} cannot be checked", detail=str(error), hint=error.hint) from error

    def _look(self, entry: ImageEntry, there: ImageEntry) -> _Checked:
        name, repository, end = f"{entry.dest}", there.dest.repository, self.end
        raw = end.tagged_manifest(repository, there.dest.tag)
        if raw is None:
            line = f" (line {entry.line})" if entry.line else ""
            return _Checked(differences=[f"{name}: is listed{line} but missing here"])
        digest, checked = Digest.of(raw), _Checked()
        if entry.source.digest not in {None, digest}:
            checked.differences.append(f"{name}: is {digest}, the list says {entry.source.digest}")
        closure = closure_of(digest, lambda d: raw if d == digest else end.manifest(repository, d), entry.platforms)
        if closure is None:
            return checked
        check_platform(closure, entry.platforms, lambda blob: end.config(repository, digest, blob))
        self._record(name, repository, closure, checked)
        for child in closure.missing:
            what = f"{name}: {child.platform or 'a manifest'} of its index ({child.digest}) is not here"
            checked.differences.append(what)
        missing = end.missing(repository, closure.blobs)
        checked.damaged = {blob.digest for blob in missing}
        checked.problems += [f"{name}: blob {b.digest} is absent, or has not {b.size} bytes" for b in missing]
        return checked

    def _record(self, name: str, repository: str, closure: Closure, checked: _Checked) -> None:
        """Remember what belongs to the image."""
        shown = shipped_platforms(closure, lambda blob: self.end.config(repository, closure.top.digest, blob))
        checked.sizes = {
            **{manifest.digest: len(manifest.raw) for manifest in closure.manifests},
            **{blob.digest: blob.size for blob in closure.blobs},
        }
        checked.image = FoundImage(
            image=name,
            digest=closure.top.digest,
            platforms=tuple(map(str, shown)),
            partial=bool(closure.missing or closure.omitted),
            blobs=frozenset(checked.sizes),
        )
        checked.sources = {blob.digest: (repository, blob) for blob in closure.blobs}

    def hash_blobs(self, endpoints: Endpoints, found: tuple[_Checked, ...]) -> dict[Digest, str]:
        """What is wrong with each blob whose bytes are not what its digest says. Each is fetched once."""
        absent = {digest for checked in found for digest in checked.damaged}
        sources = {d: source for checked in found for d, source in checked.sources.items() if d not in absent}
        self.job.listener.expect("hash", sum(blob.size for _repository, blob in sources.values()))

        def problem(source: tuple[str, Descriptor]) -> str:
            try:
                text = self.job.retry.call(lambda: self._hash(endpoints.limiters, *source))
            except ToolError as error:
                if error.transient:
                    raise
                text = f"cannot be read: {error}"
            self.job.listener.on_bytes(source[1].size)
            return text

        texts = map_in_order(problem, sources.values(), workers=self.job.jobs, name="hash", stopping=self.job.stopping)
        return {digest: text for digest, text in zip(sources, texts, strict=True) if text}

    def _hash(self, limiters: HostLimiters, repository: str, blob: Descriptor) -> str:
        with limiters.slots((self.end.registry,), 1):
            found = hashed(self.end.probe.downloads.pieces(repository, blob, 0, self.job.timeouts))
        return "" if found == blob.digest else "does not match its digest"


def _others(job: Job, check: RegistryCheck, named: tuple[ImageEntry, ...], known: set[Digest]) -> tuple[str, ...]:
    """What is there below the prefix and not in the list. What is about an image, a signature say, belongs to it."""
    listed = {f"{entry.dest}" for entry in named}
    images = list_location(job, check.location, check.prefix).images
    found = [f"{i.repository}:{i.tag}" for i in images if subject_of_tag(i.tag or "") not in known]
    return tuple(sorted(name for name in found if name not in listed))


def _report(
    check: RegistryCheck, found: tuple[_Checked, ...], wrong: dict[Digest, str], others: tuple[str, ...]
) -> VerifyReport:
    images = tuple(checked.image for checked in found if checked.image is not None)
    hashed = [f"{i.image}: blob {digest} {wrong[digest]}" for i in images for digest in sorted(i.blobs & wrong.keys())]
    sizes = {digest: size for checked in found for digest, size in checked.sizes.items()}
    damaged = {digest for checked in found for digest in checked.damaged} | set(wrong)
    return VerifyReport(
        path=PurePosixPath(check.target),
        images=len(images),
        blobs=len(sizes),
        bytes=sum(sizes.values()),
        problems=(*(line for checked in found for line in checked.problems), *hashed),
        differences=(
            *(line for checked in found for line in checked.differences),
            *(f"{name}: is not in the list" for name in others),
        ),
        others=len(others),
        inventory=Inventory(images=images, blobs=sizes, damaged=frozenset(damaged)),
    )
