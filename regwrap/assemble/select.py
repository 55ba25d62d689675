"""Selection: read the archive's storage directly, tag -> manifests -> blobs. No registry, no copies.

Costs what the list costs, not what the archive holds.
"""

from dataclasses import dataclass, field
from pathlib import Path

from regwrap.bundle.contents import BundleContents, BundleImage, BundleRepository, nameable
from regwrap.closure import Closure, check_platform, shipped_platforms
from regwrap.errors import BrokenBlobError, ImagesFailedError, IntegrityError, RegwrapError
from regwrap.imagelist import ImageEntry
from regwrap.model import Digest
from regwrap.storage.store import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What goes into a bundle. The bytes of blob D lie at `storage.blob_path(D)`; `users` names an image of each."""

    storage: Storage
    contents: BundleContents
    users: dict[Digest, str]

    def path(self, digest: Digest) -> Path:
        return self.storage.blob_path(digest)


def select_images(storage: Storage, entries: tuple[ImageEntry, ...]) -> Selection:
    """Find exactly the listed images. Everything that is wrong is found before the error is raised:
    ImagesFailedError for what is not there, BrokenBlobError for what is damaged."""
    found = _Found(storage=storage)
    for entry in entries:
        found.take(entry)
    if found.broken:
        raise BrokenBlobError(
            f"the archive {storage.root} is damaged",
            problems=tuple(found.broken),
            hint="regwrap sync --hash with the same list sends what is damaged again",
        )
    if found.absent:
        raise ImagesFailedError(
            f"{len(found.absent)} of {len(entries)} listed images can't be packed from {storage.root}",
            detail="\n".join(found.absent),
            hint="regwrap sync with the same list brings them into the archive",
        )
    return Selection(storage=storage, contents=found.contents(), users=found.users)


@dataclass(slots=True, kw_only=True)
class _Found:
    storage: Storage
    images: list[BundleImage] = field(default_factory=list)
    manifests: dict[str, set[Digest]] = field(default_factory=dict)
    layers: dict[str, set[Digest]] = field(default_factory=dict)
    sizes: dict[Digest, int] = field(default_factory=dict)
    users: dict[Digest, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def take(self, entry: ImageEntry) -> None:
        try:
            self._take(entry)
        except ImagesFailedError as error:
            self.absent.append(f"{entry.dest} (line {entry.line}): {error}")
        except RegwrapError as error:
            self.broken.append(f"{entry.dest} (line {entry.line}): {error}")

    def _take(self, entry: ImageEntry) -> None:
        repository, tag = entry.dest.repository, entry.dest.tag or ""
        top = self.storage.resolve(repository, tag)
        if top is None:
            raise ImagesFailedError("is not in the archive")
        if entry.source.digest is not None and top != entry.source.digest:
            raise ImagesFailedError(f"is {top} in the archive, the list says {entry.source.digest}")
        closure = self.storage.closure(repository, top, entry.platforms)
        if closure is None:
            raise IntegrityError(f"its manifest {top} is absent")
        if closure.missing:
            absent = ", ".join(str(child.platform or child.digest.short) for child in closure.missing)
            raise ImagesFailedError(f"the archive lacks {absent} of its index (choose with platform=…, or sync again)")
        check_platform(closure, entry.platforms, self.storage.read_config)
        self._check_blobs(closure)
        self._add(repository, tag, closure)

    def _check_blobs(self, closure: Closure) -> None:
        for blob in closure.blobs:
            size = self.storage.blob_size(blob.digest)
            if size != blob.size:
                what = "is absent" if size is None else f"has {size} bytes instead of {blob.size}"
                raise IntegrityError(f"blob {blob.digest} {what}")

    def _add(self, repository: str, tag: str, closure: Closure) -> None:
        self.images.append(
            BundleImage(
                repository=repository,
                tag=tag,
                digest=closure.top.digest,
                media_type=closure.top.media_type,
                platforms=nameable(shipped_platforms(closure, self.storage.read_config)),
                omitted=tuple(sorted(child.digest for child in closure.omitted)),
            )
        )
        self.manifests.setdefault(repository, set()).update(m.digest for m in closure.manifests)
        self.layers.setdefault(repository, set()).update(blob.digest for blob in closure.blobs)
        sizes = [*((m.digest, len(m.raw)) for m in closure.manifests), *((b.digest, b.size) for b in closure.blobs)]
        for digest, size in sizes:
            self.sizes[digest] = size
            self.users.setdefault(digest, f"{repository}:{tag}")

    def contents(self) -> BundleContents:
        return BundleContents(
            images=tuple(sorted(self.images, key=lambda image: image.name)),
            repositories=tuple(
                BundleRepository(name=name, manifests=tuple(sorted(self.manifests[name])), layers=tuple(sorted(layers)))
                for name, layers in sorted(self.layers.items())
            ),
            blobs=tuple(sorted(self.sizes.items())),
        )
