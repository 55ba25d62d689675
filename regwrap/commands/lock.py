"""Lock a list: what each image is now, by digest, and what the rules of the configuration mean today.

The only place that asks a registry what a rule means: `sync` and `package` take the lock's word.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from regwrap.bundle.aside import write_atomically
from regwrap.core.closure import check_platform, shipped_platforms
from regwrap.core.counts import counted
from regwrap.core.errors import ImagesFailedError, IntegrityError, RegwrapError, ToolError, UsageError
from regwrap.core.model import Digest, is_repository, is_tag
from regwrap.lists.imagelist import ImageEntry, ImageList, parse_images
from regwrap.lists.lock import Change, Lock, LockedImage, changes, is_lock_of, lock_text, read_lock
from regwrap.lists.rules import ImageRule, rule_line
from regwrap.registry.credentials import UnsureError
from regwrap.storage.store import Storage
from regwrap.transfer.endpoints import Endpoints
from regwrap.transfer.listing import tags_of
from regwrap.transfer.mirrors import Mirrors
from regwrap.transfer.observe import complete_closure, source_digest
from regwrap.transfer.plan import Unseen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regwrap.bundle.by_repository import ImageSource, StorageSource
    from regwrap.core.model import Platform
    from regwrap.lists.wanted import Wanted
    from regwrap.registry.endpoint import RegistryEndpoint
    from regwrap.transfer.job import Job

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LockReport:
    """`changes` from the lock that was there. It is written only where nothing `failed`. `unread` are repositories that
    rules may mean, and that could not be listed."""

    path: Path
    images: tuple[LockedImage, ...]
    changes: tuple[Change, ...]
    failed: tuple[Unseen, ...]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LockCheck:
    """What a lock says and is not so now."""

    path: Path
    images: int
    changes: tuple[Change, ...]
    failed: tuple[Unseen, ...]
    unread: tuple[str, ...] = ()


def write_lock(job: Job, wanted: Wanted, path: Path) -> LockReport:
    """Resolve all, once, and write the lock where all could be. Of an unchanged image nothing but the tag is asked."""
    old = read_lock(path) if path.exists() else Lock(name=f"{path}", images=())
    with ExitStack() as stack:
        locking = _Locking(endpoints=Endpoints(job=job, stack=stack), old=old)
        found = locking.each(locking.entries(wanted, stack), locking.lock)
    images = tuple(item for item in found if isinstance(item, LockedImage))
    failed = tuple(item for item in found if isinstance(item, Unseen))
    if not failed:
        write_atomically(path, lock_text(images))
    fresh = ((_entry_of(image), image.digest) for image in images)
    changed, unread = () if failed else changes(old, fresh), tuple(locking.unread)
    return LockReport(path=path, images=images, changes=changed, failed=failed, unread=unread)


def check_lock(job: Job, wanted: Wanted, path: Path) -> LockCheck:
    """What has changed since the lock was written: a HEAD request an image, nothing is written."""
    old = read_lock(path)
    old = replace(old, images=tuple(image for image in old.images if wanted.has(_entry_of(image))))
    with ExitStack() as stack:
        locking = _Locking(endpoints=Endpoints(job=job, stack=stack), old=old)
        found = locking.each(locking.entries(wanted, stack), locking.now)
    failed = tuple(item for item in found if isinstance(item, Unseen))
    skipped = {item.entry.dest for item in failed}
    known = Lock(name=old.name, images=tuple(image for image in old.images if image.dest not in skipped))
    seen = [item for item in found if not isinstance(item, Unseen)]
    return LockCheck(
        path=path, images=len(old.images), changes=changes(known, seen), failed=failed, unread=tuple(locking.unread)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Locking:
    endpoints: Endpoints
    old: Lock
    unread: list[str] = field(default_factory=list)

    @property
    def job(self) -> Job:
        return self.endpoints.job

    def entries(self, wanted: Wanted, stack: ExitStack) -> tuple[ImageEntry, ...]:
        """Those of the list, then those that the rules mean now and the list does not have."""
        self.endpoints.check_sources(wanted.images)
        by_rule = self._expanded(wanted)
        self.endpoints.check_sources(by_rule)
        for end in self.endpoints.storages():
            if end.storage.root.is_dir():
                stack.enter_context(self.job.locked(end.storage.tree, exclusive=False))
        listed = {entry.dest: entry for entry in wanted.images.entries}
        for entry in by_rule.entries:
            if entry.dest in listed and replace(listed[entry.dest].source, digest=None) != entry.source:
                raise UsageError(
                    f"{entry.dest} is the destination of {entry.source}, by a rule of the configuration, and of"
                    f" {listed[entry.dest].source} in {wanted.images.name}"
                )
        more = (replace(entry, line=0) for entry in by_rule.entries if entry.dest not in listed)
        entries = (*wanted.images.entries, *more)
        return tuple(filter(wanted.has, entries))

    def _expanded(self, wanted: Wanted) -> ImageList:
        lines: list[str] = []
        for rule in wanted.rules:
            meant = self._lines(rule)
            if not meant:
                self.job.listener.log(f"note: no image matches the rule {rule.match.text}")
            lines += meant
        return parse_images("\n".join(lines).encode(), "images: in the configuration", wanted.rewrite)

    def _lines(self, rule: ImageRule) -> list[str]:
        end = self._end_of(rule)
        legal = [(name, self._legal(f"{end.name}/{name}", tags, is_tag)) for name, tags in self._tags(rule, end)]
        return [rule_line(rule, name, tag) for name, tags in legal for tag in rule.chosen(tags)]

    def _tags(self, rule: ImageRule, end: RegistryEndpoint | StorageSource) -> tuple[tuple[str, tuple[str, ...]], ...]:
        match = rule.match
        if match.is_one_repository:
            return ((match.repository, self.job.retry.call(lambda: end.tags(match.repository))),)
        names = self._legal(end.name, self.job.retry.call(end.repositories), is_repository)
        found = tags_of(self.job, end, filter(rule.fits_repository, names))
        self.unread.extend(found.unread)
        return found.tags

    def _legal(self, where: str, names: tuple[str, ...], is_legal: Callable[[str], bool]) -> tuple[str, ...]:
        """A registry may say anything, and a line has more than a name: with a blank in it an image went elsewhere."""
        odd = [name for name in names if not is_legal(name)]
        if odd:
            self.job.listener.log(
                f"note: {where}: {counted(len(odd), 'name')} left out that no list can have, such as {odd[0][:200]!r}"
            )
        return tuple(filter(is_legal, names))

    def _end_of(self, rule: ImageRule) -> RegistryEndpoint | StorageSource:
        if rule.match.registry is not None:
            return self.endpoints.of(self.job.location_of(rule.match.registry))
        if self.job.source is None:
            raise UsageError(
                f"the rule {rule.match.text} names no registry, and no source is configured",
                hint="give --source HOST[:PORT], or source: in the configuration",
            )
        return self.endpoints.of(self.job.source)

    def each(self, entries: tuple[ImageEntry, ...], work: Callable[[ImageEntry], T]) -> tuple[T | Unseen, ...]:
        """`work` on each, several at a time, in the list's order."""

        def guarded(entry: ImageEntry) -> T | Unseen:
            try:
                return self.job.retry.call(lambda: work(entry))
            except (ToolError, IntegrityError, ImagesFailedError, UnsureError) as error:
                return Unseen(entry=entry, error=str(error), hint=error.hint)
            finally:
                job.listener.on_things()

        job = self.job
        job.listener.count("lock", "images looked at", len(entries))
        return job.ask(guarded, entries)

    def now(self, entry: ImageEntry) -> tuple[ImageEntry, Digest | None]:
        seen = Mirrors.of(self.endpoints, (entry,)).seen(entry)
        source, image = self.endpoints.source_of(seen), seen.source
        if image.tag is not None:
            return entry, source.resolve(image.repository, image.tag)
        there = image.digest is not None and source.manifest(image.repository, image.digest) is not None
        return entry, image.digest if there else None

    def lock(self, entry: ImageEntry) -> LockedImage:
        seen = Mirrors.of(self.endpoints, (entry,)).seen(entry)
        source = self.endpoints.source_of(seen)
        digest = source_digest(source, seen)
        fixed = replace(entry, source=replace(entry.source, digest=digest))
        known = self.old.by_dest.get(entry.dest)
        if known is not None and known.size is not None and is_lock_of(known, fixed):
            return known
        platforms, size = self._facts(source, seen, digest)
        return LockedImage(source=fixed.source, dest=entry.dest, chosen=entry.platforms, platforms=platforms, size=size)

    def _facts(self, source: ImageSource, entry: ImageEntry, digest: Digest) -> tuple[tuple[Platform, ...], int]:
        repository = entry.source.repository
        closure = complete_closure(digest, lambda d: self._kept(d) or source.manifest(repository, d), entry.platforms)
        if closure is None:
            raise ImagesFailedError(f"{source.name} has no manifest {digest} of {repository}")
        check_platform(closure, entry.platforms, lambda blob: source.config(repository, closure.top.digest, blob))
        platforms = shipped_platforms(closure, lambda blob: source.config(repository, closure.top.digest, blob))
        return tuple(platform for platform in platforms if platform.is_nameable), closure.size

    def _kept(self, digest: Digest) -> bytes | None:
        """A manifest that the archive has, verified: it need not be asked for."""
        if self.job.archive.storage is None:
            return None
        try:
            raw = Storage(self.job.archive.storage).read_blob(digest)
        except RegwrapError:
            return None
        return raw if raw is not None and Digest.of(raw) == digest else None


def _entry_of(image: LockedImage) -> ImageEntry:
    return ImageEntry(source=image.source, dest=image.dest, platforms=image.chosen, line=0, text=image.line)
