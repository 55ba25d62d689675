"""A way out for registries that refuse an index of which some platforms are not there: an index of those that are.

Its bytes are ours, so its digest is another one, and signatures of the old one do not count for it: whoever asks for it
is told so, image by image. Manifests of the platforms keep theirs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regwrap.core.closure import parsed
from regwrap.core.fields import json_object
from regwrap.core.manifest import MAX_INDEX_DEPTH, Index, children_of
from regwrap.core.model import Digest
from regwrap.core.moves import TagMove
from regwrap.lists.imagelist import ImageEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from regwrap.bundle.by_repository import LocalSource, Piece
    from regwrap.core.manifest import Descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrittenSource:
    """The source, in which some tags are indexes that were `made` for them."""

    source: LocalSource
    made: Mapping[Digest, bytes]
    moved: Mapping[tuple[str, str], Digest]

    @property
    def name(self) -> str:
        return self.source.name

    def repositories(self) -> tuple[str, ...]:
        return self.source.repositories()

    def tags(self, repository: str) -> tuple[str, ...]:
        return self.source.tags(repository)

    def repositories_after(self, last: str) -> Iterator[str]:
        return self.source.repositories_after(last)

    def tags_after(self, repository: str, last: str) -> Iterator[str]:
        return self.source.tags_after(repository, last)

    def resolve(self, repository: str, tag: str) -> Digest | None:
        return self.moved.get((repository, tag)) or self.source.resolve(repository, tag)

    def manifest(self, repository: str, digest: Digest) -> bytes | None:
        return self.made.get(digest) or self.source.manifest(repository, digest)

    def config(self, repository: str, manifest: Digest, blob: Descriptor, /) -> bytes:
        return self.source.config(repository, manifest, blob)

    def blob(self, repository: str, digest: Digest) -> Piece | None:
        return self.source.blob(repository, digest)


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What is pushed instead; `moves` are the images whose digests are others."""

    source: LocalSource
    entries: tuple[ImageEntry, ...]
    moves: tuple[TagMove, ...]


def rewrite_indexes(source: LocalSource, entries: tuple[ImageEntry, ...]) -> Rewriting:
    """Indexes without the manifests that are not there, for the images that lack some. Raises IntegrityError."""
    made: dict[Digest, bytes] = {}
    moved: dict[tuple[str, str], Digest] = {}
    moves, result = list[TagMove](), list[ImageEntry]()
    for entry in entries:
        image, new = entry.source, None
        if entry.platforms and image.digest is not None and image.tag is not None:
            new = _without_missing(image.digest, _reader(source, image.repository), made)
        if new is None or new == image.digest:
            result.append(entry)
            continue
        moved[image.repository, image.tag or ""] = new
        moves.append(TagMove(image=f"{entry.dest}", old=image.digest, new=new))
        result.append(replace(entry, source=replace(image, digest=new), platforms=()))
    return Rewriting(RewrittenSource(source=source, made=made, moved=moved), tuple(result), tuple(moves))


def _reader(source: LocalSource, repository: str) -> Callable[[Digest], bytes | None]:
    return lambda digest: source.manifest(repository, digest)


def _without_missing(
    digest: Digest, read: Callable[[Digest], bytes | None], made: dict[Digest, bytes], depth: int = 0
) -> Digest | None:
    """The digest of the manifest, or of what was made of an index; None where it is not there. An index that is too
    deep stays as it is: the image is refused, alone, where its closure is looked at."""
    if depth > MAX_INDEX_DEPTH:
        return digest
    raw = read(digest)
    if raw is None:
        return None
    index = parsed(digest, raw)
    if not isinstance(index, Index):
        return digest
    children = children_of(index)
    found = [(said, _without_missing(child.digest, read, made, depth + 1)) for child, said in children]
    kept = [_child(said, new, made) for said, new in found if new is not None]
    if kept == [said for _digest, said in children]:
        return digest
    text = json.dumps({**json_object(raw), "manifests": kept}, separators=(",", ":")).encode()
    made[Digest.of(text)] = text
    return Digest.of(text)


def _child(child: dict[str, object], new: Digest, made: Mapping[Digest, bytes]) -> dict[str, object]:
    return {**child, "digest": f"{new}", "size": len(made[new])} if new in made else child
