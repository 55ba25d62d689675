"""What of a storage nothing needs: a pure value, with a reason for each image. Nothing is changed here.

Tags keep their manifests, children of indexes, configs and layers; what is kept keeps its referrers and signatures.
A repository in which something that is to be kept cannot be read is kept as it is: what it needs cannot be told.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import IntegrityError, LostBlobError, UsageError
from regwrap.core.listener import SILENT, counted_by
from regwrap.core.manifest import Index, parse_manifest, subject_of
from regwrap.core.model import Digest, subject_of_tag
from regwrap.storage import layout
from regwrap.storage.store import Storage, read_link
from regwrap.storage.survey import RepositoryTree, Survey, survey_storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regwrap.core.closure import Closure
    from regwrap.core.listener import Listener

_HEX: Final = attrgetter("hex")
_OTHER: Final = -1  # in a blob's place, and no regular file


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """`names` (REPOSITORY:TAG) and the `last` newest tags of each repository are kept. Both None: all tags.
    `digests`, each in its repository, are kept whether a tag points to them or not.
    `releases`: some of that are of releases."""

    names: frozenset[str] | None
    last: int | None
    digests: frozenset[tuple[str, Digest]] = frozenset()
    releases: bool = False

    @property
    def all_tags(self) -> bool:
        return self.names is None and self.last is None

    def digests_by_repository(self) -> dict[str, list[Digest]]:
        found: dict[str, list[Digest]] = {}
        for repository, digest in sorted(self.digests):
            found.setdefault(repository, []).append(digest)
        return found

    @property
    def refusal(self) -> str:
        """Why a tag is not kept."""
        newest = f"among the {self.last} newest of its repository"
        if self.names is None:
            return f"not {newest}"
        if self.releases:
            return "in no kept release or list" + ("" if self.last is None else f", nor {newest}")
        return "not in the list" if self.last is None else f"neither in the list nor {newest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedImage:
    """`image` is REPOSITORY:TAG, or REPOSITORY@DIGEST where no tag points to it."""

    image: str
    digest: Digest | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryGarbage:
    """`history` are old digests of tags that stay. `bytes` of blobs that only garbage links need, and of `uploads`;
    `gone`: nothing of the repository stays, except for others in it."""

    name: str
    tags: tuple[str, ...]
    history: tuple[tuple[str, Digest], ...]
    revisions: tuple[Digest, ...]
    layers: tuple[Digest, ...]
    uploads: int | None
    bytes: int
    gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """`blobs` with their sizes (0: an empty directory); `prefixes` are directories of blobs in which none stays.
    `kept` tags, and `pinned` images that are kept by their digest alone."""

    images: tuple[DroppedImage, ...]
    kept: int
    pinned: int
    repositories: tuple[RepositoryGarbage, ...]
    blobs: tuple[tuple[Digest, int], ...]
    prefixes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def blob_bytes(self) -> int:
        return sum(size for _digest, size in self.blobs)


def find_garbage(storage: Storage, keep: Keep, listener: Listener = SILENT) -> Garbage:
    """Decide what can go. Raises UsageError where nothing would be left, or where it is no storage, and OSError or
    LostBlobError where the disk fails: what it hides for a moment, a signature for one, must not be taken for
    garbage."""
    survey = survey_storage(storage, listener)
    marks = [_Marks(storage, tree) for tree in survey.repositories]
    pins = keep.digests_by_repository()
    listener.count("gc", "images read", sum(len(mark.tree.tags) + len(pins.get(mark.tree.name, ())) for mark in marks))
    for mark in marks:
        mark.keep_digests(counted_by(listener, pins.get(mark.tree.name, ())))
        mark.keep_tags(keep, listener)
    _keep_attached(marks)
    if not any(mark.stays for mark in marks) and (survey.blobs or any(mark.tree.tags for mark in marks)):
        raise UsageError(
            f"nothing would remain in {storage.root}: no tag is kept",
            hint="check the directory and the list; to empty a storage, delete its directory",
        )
    return _Decision(storage, survey, keep, marks).garbage()


def _keep_attached(marks: list[_Marks]) -> None:
    """Signatures may have signatures, in other repositories too: until nothing new is kept."""
    growing = True
    while growing:
        kept = {digest for mark in marks for digest in mark.manifests}
        grown = [mark.keep_attached(kept) for mark in marks]
        growing = any(grown)


class _Marks:
    """What is kept of one repository, and what is read of it for that."""

    def __init__(self, storage: Storage, tree: RepositoryTree) -> None:
        self.storage = storage
        self.tree = tree
        self.tags: set[str] = set()
        self.manifests: set[Digest] = set()
        self.layers: set[Digest] = set()
        self.pinned: set[Digest] = set()
        self.doubt = ""
        self._untagged: dict[Digest, _Untagged] = {}

    @property
    def stays(self) -> bool:
        return bool(self.tags or self.manifests or self.doubt)

    def keep_digests(self, digests: Iterable[Digest]) -> None:
        """Images that a lock or a release names by digest: a tag may have moved away from them since."""
        name = self.tree.name
        for digest in digests:
            if self.storage.tree.stat(layout.revision_link(name, digest)) is not None:
                self.pinned.add(digest)
                self._keep_image(digest, f"{name}@{digest.short}")

    def keep_tags(self, keep: Keep, listener: Listener) -> None:
        named = (tag for tag in self.tree.tags if keep.all_tags or f"{self.tree.name}:{tag}" in (keep.names or ()))
        kept = dict.fromkeys((*named, *self._newest(keep.last or 0)))
        for tag in counted_by(listener, kept):
            self._keep_tag(tag)
        listener.on_things(len(self.tree.tags) - len(kept))

    @property
    def tagged(self) -> set[Digest | None]:
        """What the kept tags point to."""
        return {self.tree.tags[tag].digest for tag in self.tags}

    def keep_attached(self, kept: set[Digest]) -> bool:
        """Keep tags and untagged manifests that are about something kept; whether there was a new one."""
        before = len(self.manifests), len(self.tags)
        for tag in self.tree.tags:
            if tag not in self.tags and subject_of_tag(tag) in kept:
                self._keep_tag(tag)
        for digest in sorted(self.tree.revisions - self.manifests):
            if self.untagged(digest).subject in self.manifests:
                self._keep_image(digest, f"{self.tree.name}@{digest.short}")
        return before != (len(self.manifests), len(self.tags))

    def untagged(self, digest: Digest) -> _Untagged:
        """What a revision says that no tag leads to, read once."""
        if digest not in self._untagged:
            self._untagged[digest] = self._read_untagged(digest)
        return self._untagged[digest]

    def _read_untagged(self, digest: Digest) -> _Untagged:
        if not self.storage.has_revision(self.tree.name, digest):
            return _Untagged(reason="its link is damaged or absent")
        try:
            raw = self.storage.read_blob(digest)
        except LostBlobError:
            raise
        except IntegrityError as error:
            return _Untagged(reason=f"it cannot be read: {error}")
        if raw is None:
            return _Untagged(reason="its manifest is missing")
        subject = subject_of(raw)
        reason = "no tag points to it" if subject is None else f"its subject {subject.short} is not kept"
        return _Untagged(subject=subject, children=_children(raw), reason=reason)

    def _newest(self, count: int) -> list[str]:
        plain = [tag for tag in self.tree.tags if subject_of_tag(tag) is None]
        return sorted(plain, key=lambda tag: (self._time(tag), _version_key(tag)), reverse=True)[:count]

    def _time(self, tag: str) -> float:
        status = self.storage.tree.stat(layout.tag_link(self.tree.name, tag))
        return float("inf") if status is None else status.st_mtime_ns  # a push that was cut off, for all one can tell

    def _keep_tag(self, tag: str) -> None:
        self.tags.add(tag)
        digest = self.tree.tags[tag].digest
        if digest is None:
            self._keep_all(f"the link of tag {tag} is damaged or absent")
        else:
            self._keep_image(digest, f"{self.tree.name}:{tag}")

    def _keep_image(self, top: Digest, name: str) -> None:
        if top in self.manifests:
            return
        try:
            closure = self.storage.closure(self.tree.name, top)
        except LostBlobError:
            raise
        except IntegrityError as error:
            self._keep_all(f"{name} cannot be read: {error}")
            return
        if closure is None:
            self._keep_all(f"the manifest {top.short} of {name} is not there or not linked")
            return
        self._add(closure)
        missing = (child.digest for child in closure.missing)
        lost = [d for d in missing if d in self.tree.revisions or self.storage.has_lost(self.tree.name, d)]
        if lost:
            self._keep_all(f"{name} has lost {lost[0].short}")

    def _keep_all(self, reason: str) -> None:
        """All that is linked, and all that its manifests name as far as they can be read."""
        if self.doubt:
            return
        self.doubt = reason
        trees = self.tree.tags.values()
        self.tags |= set(self.tree.tags)
        self.manifests |= {digest for tree in trees for digest in (tree.digest, *tree.history) if digest is not None}
        for digest in sorted(self.tree.revisions | self.manifests):
            self.manifests.add(digest)
            try:
                closure = self.storage.closure(self.tree.name, digest)
            except LostBlobError:
                raise
            except IntegrityError:
                continue
            if closure is not None:
                self._add(closure)
                self.manifests |= {child.digest for child in closure.missing}
        self.layers |= self.tree.layers

    def _add(self, closure: Closure) -> None:
        self.manifests |= {manifest.digest for manifest in closure.manifests}
        self.layers |= {blob.digest for blob in closure.blobs}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Untagged:
    """A revision that no kept tag needs; `reason` says why it can go."""

    reason: str
    subject: Digest | None = None
    children: frozenset[Digest] = frozenset()


def _children(raw: bytes) -> frozenset[Digest]:
    try:
        manifest = parse_manifest(raw)
    except IntegrityError:
        return frozenset()
    return frozenset(c.digest for c in manifest.manifests) if isinstance(manifest, Index) else frozenset()


def _version_key(tag: str) -> list[tuple[int, str]]:
    """v1.10 comes behind v1.9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", tag) if part]


@dataclass(slots=True)
class _Decision:
    """From what is kept to what goes."""

    storage: Storage
    survey: Survey
    keep: Keep
    marks: list[_Marks]
    notes: list[str] = field(default_factory=list)
    _sizes: dict[Digest, int | None] = field(default_factory=dict)

    def garbage(self) -> Garbage:
        needed = {digest for mark in self.marks for digest in (*mark.manifests, *mark.layers)}
        blobs = tuple(self._blobs(self.survey.blobs - needed))
        repositories = tuple(self._repositories(dict(blobs)))
        self.notes += (f"{path} is unknown or malformed; not changed" for path in self.survey.unknown)
        return Garbage(
            images=tuple(image for mark in self.marks for image in self._images(mark)),
            kept=sum(len(mark.tags) for mark in self.marks),
            pinned=sum(len(mark.pinned - mark.tagged) for mark in self.marks),
            repositories=repositories,
            blobs=blobs,
            prefixes=tuple(sorted(set(self.survey.prefixes) - {d.hex[:2] for d in self.survey.blobs & needed})),
            notes=(*self._note_names(), *self._note_doubts(), *self.notes),
        )

    def _blobs(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, int]]:
        for digest in sorted(digests, key=_HEX):
            size = self._size(digest)
            if size == _OTHER:
                self.notes.append(f"{layout.blob_path(digest)} is no regular file; left alone")
            else:
                yield digest, size or 0

    def _size(self, digest: Digest) -> int | None:
        if digest not in self._sizes:
            self._sizes[digest] = _size_of(self.storage, layout.blob_path(digest))
        return self._sizes[digest]

    def _repositories(self, sizes: dict[Digest, int]) -> Iterator[RepositoryGarbage]:
        kept = [mark.tree.name.split("/") for mark in self.marks if mark.stays]
        above = {"/".join(parts[:depth]) for parts in kept for depth in range(1, len(parts))}
        for mark in self.marks:
            tree = mark.tree
            revisions, layers = tree.revisions - mark.manifests, self._layers(mark)
            garbage = RepositoryGarbage(
                name=tree.name,
                tags=tuple(sorted(set(tree.tags) - mark.tags)),
                history=tuple(_history(mark)),
                revisions=tuple(sorted(revisions, key=_HEX)),
                layers=tuple(sorted(layers, key=_HEX)),
                uploads=tree.uploads,
                bytes=sum(sizes.get(digest, 0) for digest in revisions | layers) + (tree.uploads or 0),
                gone=not mark.stays,
            )
            needed = mark.stays or (tree.is_bare and tree.name in above)
            if garbage.tags or garbage.history or revisions or layers or tree.uploads is not None or not needed:
                yield garbage

    def _layers(self, mark: _Marks) -> set[Digest]:
        """Links that nothing needs, and those that do harm: an empty one makes every later push fail."""
        spoilt = {digest for digest in mark.tree.layers & mark.layers if self._is_spoilt(mark.tree.name, digest)}
        for digest in sorted(spoilt if not mark.doubt else ()):
            self.notes.append(
                f"{mark.tree.name} needs {digest}: its blob is not there, or its link was damaged; the link is removed,"
                " so that a push or a sync of the image repairs it"
            )
        return (set(mark.tree.layers) - mark.layers) | spoilt

    def _is_spoilt(self, repository: str, digest: Digest) -> bool:
        name = layout.layer_link(repository, digest)
        if read_link(self.storage.tree, name) == digest:
            return self._size(digest) is None
        return _size_of(self.storage, name) not in {None, _OTHER}

    def _images(self, mark: _Marks) -> Iterator[DroppedImage]:
        """Tags, and manifests that no tag and no other manifest that goes points to."""
        name, tags = mark.tree.name, mark.tree.tags
        for tag in sorted(set(tags) - mark.tags):
            yield DroppedImage(image=f"{name}:{tag}", digest=tags[tag].digest, reason=self._reason(tag))
        untagged = {digest: mark.untagged(digest) for digest in sorted(mark.tree.revisions - mark.manifests)}
        parts = {child for facts in untagged.values() for child in facts.children}
        tagged = {tags[tag].digest for tag in set(tags) - mark.tags}
        for digest, facts in untagged.items():
            if digest not in parts and digest not in tagged:
                yield DroppedImage(image=f"{name}@{digest}", digest=digest, reason=facts.reason)

    def _reason(self, tag: str) -> str:
        subject = subject_of_tag(tag)
        return self.keep.refusal if subject is None else f"its subject {subject.short} is not kept"

    def _note_names(self) -> list[str]:
        there = {f"{mark.tree.name}:{tag}" for mark in self.marks for tag in mark.tree.tags}
        there |= {f"{mark.tree.name}@{digest}" for mark in self.marks for digest in mark.pinned}
        wanted = {*(self.keep.names or ()), *(f"{name}@{digest}" for name, digest in self.keep.digests)}
        return [f"{name} is to be kept and is not there" for name in sorted(wanted - there)]

    def _note_doubts(self) -> list[str]:
        root = self.storage.root
        return [
            f"{mark.tree.name} is kept as it is because {mark.doubt}; regwrap verify {root} says more"
            for mark in self.marks
            if mark.doubt
        ]


def _history(mark: _Marks) -> Iterator[tuple[str, Digest]]:
    for tag in sorted(mark.tags):
        yield from ((tag, digest) for digest in mark.tree.tags[tag].history if digest not in mark.manifests)


def _size_of(storage: Storage, name: str) -> int | None:
    status = storage.tree.stat(name)
    if status is None:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else _OTHER
