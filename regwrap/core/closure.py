"""All that belongs to one image: index, manifests, configs and layers, found from its top by a `fetch` function.

The same walk serves a registry, a storage and a bundle. An index may be shipped without some of its children: those
that were not asked for are `omitted`, those that were and are not there are `missing`; none is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from regwrap.core.errors import ImagesFailedError, IntegrityError
from regwrap.core.fields import a_text, field, json_object
from regwrap.core.manifest import MAX_INDEX_DEPTH, Descriptor, Index, Manifest, parse_manifest
from regwrap.core.model import Digest, Platform

_BUILDKIT_CACHE: Final = "application/vnd.buildkit.cacheconfig.v0"
Fetch = Callable[[Digest], bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """`manifests` has children before parents, the top last; `blobs` are configs and layers, each digest once."""

    top: Manifest | Index
    manifests: tuple[Manifest | Index, ...]
    blobs: tuple[Descriptor, ...]
    omitted: tuple[Descriptor, ...]
    missing: tuple[Descriptor, ...]

    @property
    def leaves(self) -> tuple[Manifest, ...]:
        return tuple(m for m in self.manifests if isinstance(m, Manifest))

    @property
    def size(self) -> int:
        """Bytes of all manifests and blobs."""
        return sum(len(m.raw) for m in self.manifests) + sum(b.size for b in self.blobs)


def closure_of(top: Digest, fetch: Fetch, platforms: tuple[Platform, ...] = ()) -> Closure | None:
    """Walk from `top`; None where `top` itself is absent.

    Raises IntegrityError where bytes do not fit their digest, and ImagesFailedError where a platform is asked for
    that the index does not name.
    """
    raw = fetch(top)
    if raw is None:
        return None
    walk = _Walk(fetch=fetch, platforms=platforms)
    walk.visit(parsed(top, raw), depth=0)
    return walk.closure()


def parsed(digest: Digest, raw: bytes) -> Manifest | Index:
    """The manifest behind `digest`. Raises IntegrityError where the bytes are others."""
    if Digest.of(raw) != digest:
        raise IntegrityError(f"manifest {digest.short} does not match its digest: it is {Digest.of(raw).short}")
    return parse_manifest(raw)


class _Walk:
    def __init__(self, *, fetch: Fetch, platforms: tuple[Platform, ...]) -> None:
        self.fetch = fetch
        self.platforms = platforms
        self.manifests: dict[Digest, Manifest | Index] = {}
        self.omitted: dict[Digest, Descriptor] = {}
        self.missing: dict[Digest, Descriptor] = {}

    def visit(self, manifest: Manifest | Index, depth: int) -> None:
        if depth > MAX_INDEX_DEPTH:
            raise IntegrityError(f"index {manifest.digest.short} is nested deeper than {MAX_INDEX_DEPTH} levels")
        if isinstance(manifest, Index):
            _refuse_cache(manifest)
            wanted = self._wanted(manifest, depth)
            self._visit_children(manifest, wanted, depth)
        self.manifests[manifest.digest] = manifest

    def _wanted(self, index: Index, depth: int) -> set[Digest]:
        if not self.platforms:
            return {child.digest for child in index.manifests}
        missing = [p for p in self.platforms if not any(_is_for(child, p) for child in index.manifests)]
        if missing and depth == 0:
            has = ", ".join(str(p) for p in platforms_of(index)) or "none"
            asked = ", ".join(str(p) for p in missing)
            raise ImagesFailedError(f"index {index.digest.short} has no {asked}; it has {has}")
        kept = {c.digest for c in index.manifests if c.platform is None or any(_is_for(c, p) for p in self.platforms)}
        return kept | {c.digest for c in index.manifests if c.subject in kept}

    def _visit_children(self, index: Index, wanted: set[Digest], depth: int) -> None:
        for child in index.manifests:
            if known := self.manifests.get(child.digest):
                _check_size(child, known.raw)
                continue
            if child.digest not in wanted:
                self.omitted[child.digest] = child
                continue
            raw = self.fetch(child.digest)
            if raw is None:
                # what was made when attestations were left out does not lack them
                (self.omitted if self.platforms and child.subject else self.missing)[child.digest] = child
                continue
            _check_size(child, raw)
            self.visit(parsed(child.digest, raw), depth + 1)

    def closure(self) -> Closure:
        blobs: dict[Digest, Descriptor] = {}
        for manifest in self.manifests.values():
            for blob in manifest.blobs if isinstance(manifest, Manifest) else ():
                known = blobs.setdefault(blob.digest, blob)
                if known.size != blob.size:
                    raise IntegrityError(f"blob {blob.digest.short} has two sizes: {known.size} and {blob.size} bytes")
        return Closure(
            top=list(self.manifests.values())[-1],
            manifests=tuple(self.manifests.values()),
            blobs=tuple(blobs.values()),
            # another index may have what one of them left out
            omitted=tuple(child for child in self.omitted.values() if child.digest not in self.manifests),
            missing=tuple(self.missing.values()),
        )


def _refuse_cache(index: Index) -> None:
    if any(child.media_type == _BUILDKIT_CACHE for child in index.manifests):
        raise ImagesFailedError(
            f"index {index.digest.short} is a build cache of BuildKit, not an image",
            hint="leave it out; a cache exported with image-manifest=true can be copied",
        )


def _check_size(child: Descriptor, raw: bytes) -> None:
    if len(raw) != child.size:
        raise IntegrityError(f"manifest {child.digest.short} has {len(raw)} bytes, its index says {child.size}")


def _is_for(child: Descriptor, platform: Platform) -> bool:
    return child.platform is not None and platform.matches(child.platform)


def platforms_of(index: Index) -> tuple[Platform, ...]:
    """The platforms an index names, without the `unknown/unknown` of attestations."""
    named = {c.platform for c in index.manifests if c.platform is not None}
    return tuple(sorted(p for p in named if p.os != "unknown" and p.architecture))


def shipped_platforms(closure: Closure, config: Callable[[Descriptor], bytes]) -> tuple[Platform, ...]:
    """The platforms that are really there. A single manifest's is read from its config; an artifact has none."""
    if isinstance(closure.top, Manifest):
        return tuple(_config_platforms(config(closure.top.config)))
    present = {m.digest for m in closure.manifests}
    named = {c.platform for m in closure.manifests if isinstance(m, Index) for c in m.manifests if c.digest in present}
    return tuple(sorted(p for p in named if p is not None and p.os != "unknown" and p.architecture))


def _config_platforms(raw: bytes) -> Iterator[Platform]:
    try:
        document = json_object(raw)
        keys = ("os", "architecture", "variant")
        platform = Platform(*(field(document, key, lambda text: a_text(text or "")) for key in keys))
    except ValueError:
        return
    if platform.os and platform.architecture:
        yield platform


def check_sizes(closure: Closure, size_of: Callable[[Digest], int | None]) -> None:
    """Raise IntegrityError where a blob is absent, for which `size_of` has None, or has another size in bytes."""
    for blob in closure.blobs:
        size = size_of(blob.digest)
        if size != blob.size:
            what = "is absent" if size is None else f"has {size} bytes instead of {blob.size}"
            raise IntegrityError(f"blob {blob.digest} {what}")


def check_platform(closure: Closure, wanted: tuple[Platform, ...], config: Callable[[Descriptor], bytes]) -> None:
    """Raise ImagesFailedError where a single-platform image is not for all the platforms that were asked for."""
    if not wanted or isinstance(closure.top, Index):
        return
    has = shipped_platforms(closure, config)
    missing = [p for p in wanted if not any(p.matches(other) for other in has)]
    if missing:
        asked, there = ", ".join(map(str, missing)), ", ".join(map(str, has)) or "no platform"
        raise ImagesFailedError(f"the image is for {there}, not for {asked}")
