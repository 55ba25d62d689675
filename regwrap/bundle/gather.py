"""From images as they are found, one after the other, to what bundle.json says of them all. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regwrap.bundle.contents import BundleContents, BundleImage, BundleRepository
from regwrap.core.closure import Closure, shipped_platforms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from regwrap.core.manifest import Descriptor
    from regwrap.core.model import Digest


@dataclass(slots=True)
class Gathering:
    """`users` names an image for each blob."""

    users: dict[Digest, str] = field(default_factory=dict)
    _images: list[BundleImage] = field(default_factory=list)
    _manifests: dict[str, set[Digest]] = field(default_factory=dict)
    _layers: dict[str, set[Digest]] = field(default_factory=dict)
    _sizes: dict[Digest, int] = field(default_factory=dict)

    def add(
        self,
        repository: str,
        tag: str,
        closure: Closure,
        *,
        omitted: Iterable[Descriptor],
        read_config: Callable[[Descriptor], bytes],
    ) -> None:
        self._images.append(
            BundleImage(
                repository=repository,
                tag=tag,
                digest=closure.top.digest,
                media_type=closure.top.media_type,
                platforms=tuple(p for p in shipped_platforms(closure, read_config) if p.is_nameable),
                omitted=tuple(sorted({child.digest for child in omitted})),
            )
        )
        self._manifests.setdefault(repository, set()).update(m.digest for m in closure.manifests)
        self._layers.setdefault(repository, set()).update(blob.digest for blob in closure.blobs)
        sizes = [*((m.digest, len(m.raw)) for m in closure.manifests), *((b.digest, b.size) for b in closure.blobs)]
        for digest, size in sizes:
            self._sizes[digest] = size
            self.users.setdefault(digest, f"{repository}:{tag}")

    def contents(self) -> BundleContents:
        return BundleContents(
            images=tuple(sorted(self._images, key=lambda image: image.name)),
            repositories=tuple(
                BundleRepository(name=name, manifests=tuple(sorted(self._manifests[name])), layers=tuple(sorted(found)))
                for name, found in sorted(self._layers.items())
            ),
            blobs=tuple(sorted(self._sizes.items())),
        )
