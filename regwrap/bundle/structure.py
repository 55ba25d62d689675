"""Whether a bundle fits together: images, manifests, configs and layers against what bundle.json lists.

Of a delta without its base nothing is said of what is not at hand; with it, a delta has to fit like a whole bundle.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regwrap.core.closure import Closure, shipped_platforms
from regwrap.core.errors import LostBlobError, RegwrapError
from regwrap.core.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.bundle.contents import BundleContents, BundleImage
    from regwrap.bundle.read import Bundle
    from regwrap.core.model import Digest


def structure_problems(bundle: Bundle) -> list[str]:
    """What is inconsistent: links that say something else, and each image's index, manifests, configs and layers
    against what the bundle lists."""
    problems = [f"{link.path}: the bytes do not have the digest {link.digest}" for link in bundle.strange]
    seen = _Seen()
    for image in bundle.contents.images:
        try:
            closure = bundle.closure(image)
        except RegwrapError as error:
            problems.append(f"{image.name}: {error}")
            continue
        problems += [f"{image.name}: {text}" for text in _image_problems(bundle, image, closure)]
        seen.add(image, closure, complete=not _unseen(bundle, image, closure))
    return problems or _list_problems(bundle.contents, seen)


def unseen_images(bundle: Bundle) -> tuple[str, ...]:
    """Images of a delta of which a manifest is not at hand."""
    images = bundle.contents.images if bundle.contents.required else ()
    return tuple(image.name for image in images if _unseen(bundle, image, bundle.closure(image)))


def _unseen(bundle: Bundle, image: BundleImage, closure: Closure | None) -> set[Digest]:
    """The manifests of an image that a delta requires, and that are not at hand."""
    missing = {image.digest} if closure is None else {child.digest for child in closure.missing} - set(image.omitted)
    return {digest for digest in missing if _is_elsewhere(bundle, digest)}


def _is_elsewhere(bundle: Bundle, digest: Digest) -> bool:
    return digest in bundle.contents.sizes and not bundle.has(digest)


@dataclass(slots=True)
class _Seen:
    """What the images of each repository link to; `partly` are repositories of which not every manifest was seen."""

    manifests: dict[str, set[Digest]] = field(default_factory=dict)
    layers: dict[str, set[Digest]] = field(default_factory=dict)
    partly: set[str] = field(default_factory=set)

    def add(self, image: BundleImage, closure: Closure | None, *, complete: bool) -> None:
        if not complete:
            self.partly.add(image.repository)
        if closure is not None:
            self.manifests.setdefault(image.repository, set()).update(m.digest for m in closure.manifests)
            self.layers.setdefault(image.repository, set()).update(b.digest for b in closure.blobs)

    def fits(self, name: str, listed: tuple[Digest, ...], found: set[Digest]) -> bool:
        return found <= set(listed) if name in self.partly else found == set(listed)


def _image_problems(bundle: Bundle, image: BundleImage, closure: Closure | None) -> Iterator[str]:
    unseen = _unseen(bundle, image, closure)
    if closure is None:
        if not unseen:
            yield f"its manifest {image.digest} is not in the bundle"
        return
    omitted, missing = set(image.omitted), [child for child in closure.missing if child.digest not in unseen]
    for child in missing:
        if child.digest not in omitted:
            yield f"manifest {child.digest} ({child.platform or 'no platform'}) is not in the bundle"
    if omitted != {child.digest for child in missing}:
        yield "bundle.json and the index disagree about omitted manifests"
    if image.media_type != closure.top.media_type:
        yield f"bundle.json says {image.media_type!r}, it is {closure.top.media_type}"
    if not unseen and _names_others(bundle, image, closure):
        yield "bundle.json and the image disagree about platforms"
    yield from _blob_problems(bundle, closure)


def _blob_problems(bundle: Bundle, closure: Closure) -> Iterator[str]:
    sizes = bundle.contents.sizes
    for blob in closure.blobs:
        size = sizes.get(blob.digest)
        if size is None:
            yield f"blob {blob.digest} is not in the bundle"
        elif size != blob.size:
            yield f"blob {blob.digest} has {size} bytes, its manifest says {blob.size}"


def _names_others(bundle: Bundle, image: BundleImage, closure: Closure) -> bool:
    if isinstance(closure.top, Manifest):
        config = closure.top.config
        is_valid = bundle.has(config.digest) and bundle.contents.sizes[config.digest] == config.size
        if not is_valid or not _is_right(bundle, config.digest):
            return False  # a problem of its own, or it can't be told
    platforms = shipped_platforms(closure, lambda config: bundle.read(config.digest) or b"")
    return image.platforms != tuple(platform for platform in platforms if platform.is_nameable)


def _is_right(bundle: Bundle, digest: Digest) -> bool:
    with suppress(LostBlobError):
        return bundle.copy(digest)
    return False


def _list_problems(contents: BundleContents, seen: _Seen) -> list[str]:
    problems = []
    for repository in contents.repositories:
        if not seen.fits(repository.name, repository.manifests, seen.manifests.pop(repository.name, set())):
            problems.append(f"{repository.name}: bundle.json and the images disagree about manifests")
        if not seen.fits(repository.name, repository.layers, seen.layers.get(repository.name, set())):
            problems.append(f"{repository.name}: bundle.json and the images disagree about layers")
    problems += [f"{name}: bundle.json does not list the repository" for name in sorted(seen.manifests)]
    needed = {d for r in contents.repositories for d in (*r.manifests, *r.layers)}
    problems += [f"blob {digest} belongs to no image" for digest in contents.sizes if digest not in needed]
    return problems
