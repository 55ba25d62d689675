"""Read-only questions about bundles and storages: is it whole, what is in it, is it exactly the list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from regwrap.bundle.base import BASE_HINT, Base, based
from regwrap.bundle.inventory import NOTHING, FoundImage, Inventory
from regwrap.bundle.read import HASH_THREADS, Bundle, hash_all, opened_bundle
from regwrap.bundle.structure import structure_problems, unseen_images
from regwrap.core.closure import Closure, shipped_platforms
from regwrap.core.counts import counted
from regwrap.core.errors import ImagesFailedError, LostBlobError, RegwrapError
from regwrap.core.listener import counted_by
from regwrap.core.manifest import Index
from regwrap.core.model import Digest, subject_of_tag
from regwrap.core.pool import map_in_order
from regwrap.core.text import human_bytes
from regwrap.storage import layout
from regwrap.storage.hashing import hash_problem
from regwrap.storage.store import Storage, need_storage, read_link
from regwrap.storage.survey import linked_directories
from regwrap.storage.tree import LinkedDirectoryError

if TYPE_CHECKING:
    from pathlib import Path, PurePath

    from regwrap.bundle.contents import BundleContents
    from regwrap.bundle.signature import Trust
    from regwrap.core.listener import Listener
    from regwrap.lists.imagelist import ImageEntry

OnBytes = Callable[[int], None]
HashElsewhere = Callable[[Sequence[tuple[Digest, int]], OnBytes], Mapping[Digest, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """`problems` are damage, `differences` what is not as the list says: a line each, all of them. `notes` are neither
    (an index shipped without some platforms). `others` of the images are not in the list, and may be there.
    `name` and `id` are those of a bundle's release. `inventory` is all that was found; a receipt tells it."""

    path: PurePath
    images: int
    blobs: int
    bytes: int
    problems: tuple[str, ...]
    differences: tuple[str, ...] = ()
    others: int = 0
    notes: tuple[str, ...] = ()
    name: str = field(default="", compare=False)
    id: str = field(default="", compare=False)
    inventory: Inventory = field(default=NOTHING, compare=False, repr=False)

    def outline(self) -> dict[str, object]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "inventory"}


def verify_bundle(
    path: Path,
    entries: tuple[ImageEntry, ...] | None,
    listener: Listener,
    *,
    bases: Sequence[Base] = (),
    trusted: bool = False,
    trust: Trust | None = None,
) -> VerifyReport:
    """Check a bundle without unpacking it; a delta with what it requires, where there are `bases`. Of those that are
    `trusted` blobs are not hashed. Raises IntegrityError where not even its structure can be read."""
    with opened_bundle(path, trust, listener) as alone:
        bundle = based(alone, bases, hint=BASE_HINT) if bases else alone
        held = bundle.contents.blobs if trusted else bundle.held
        listener.expect("verify", sum(size for _digest, size in held))
        return report_on(bundle, held, hash_all(bundle.copy, held, listener.on_bytes), entries)


def report_on(
    bundle: Bundle,
    held: tuple[tuple[Digest, int], ...],
    wrong: Mapping[Digest, str],
    entries: tuple[ImageEntry, ...] | None,
) -> VerifyReport:
    """What is to be said of a bundle of which the blobs in `held` were hashed, with these that were `wrong`, and why
    where they could not be read."""
    contents, differences = bundle.contents, list[str]()
    if entries is not None:
        found = {image.name: (image.digest, tuple(map(str, image.platforms))) for image in contents.images}
        known = {repository.name: frozenset(repository.manifests) for repository in contents.repositories}
        others = _other_problems(_others(found, entries, known))
        differences = [*_list_problems(found, entries), *others, *_left_out(contents, entries)]
    return VerifyReport(
        path=bundle.path,
        images=len(contents.images),
        blobs=len(held),
        bytes=sum(size for _digest, size in held),
        problems=(
            *structure_problems(bundle),
            *(hash_problem(d, layout.blob_path(d), why) for d, why in wrong.items()),
        ),
        differences=tuple(differences),
        notes=tuple(_notes(bundle)),
        name=contents.name,
        id=str(contents.id),
        inventory=Inventory(images=tuple(_in_bundle(bundle)), blobs=dict(held), damaged=frozenset(wrong)),
    )


def _notes(bundle: Bundle) -> Iterator[str]:
    """What a check of a delta without its base can't say."""
    contents, unseen = bundle.contents, unseen_images(bundle)
    if contents.required and not bundle.base:
        blobs, size = counted(len(contents.required), "blob"), human_bytes(contents.required_bytes)
        yield f"a delta: it requires {blobs} ({size}) that it does not have; --base checks them too"
    if unseen:
        have = counted(len(unseen), "image has", "images have")
        yield f"{have} manifests that are not in it and were not looked at, such as {unseen[0]}"


def _in_bundle(bundle: Bundle) -> Iterator[FoundImage]:
    for image in bundle.contents.images:
        with suppress(RegwrapError):  # the structure's problems say so
            yield FoundImage(
                image=image.name,
                digest=image.digest,
                platforms=tuple(map(str, image.platforms)),
                partial=bool(image.omitted),
                blobs=frozenset(needs_of(bundle.contents.sizes, bundle.closure(image))),
            )


def _left_out(contents: BundleContents, entries: tuple[ImageEntry, ...]) -> Iterator[str]:
    wanted_whole = {str(entry.dest) for entry in entries if not entry.platforms}
    for image in contents.images:
        if image.omitted and image.name in wanted_whole:
            count = len(image.omitted)
            lost = counted(count, "manifest of the index is", "manifests of the index are")
            yield f"{image.name}: the list has all platforms, but {lost} missing"


_Found = Mapping[str, tuple[Digest, tuple[str, ...]]]


def _list_problems(found: _Found, entries: tuple[ImageEntry, ...]) -> Iterator[str]:
    """What of the list is not here, or is another image, or for other platforms."""
    for name, entry in {str(entry.dest): entry for entry in entries}.items():
        if name not in found:
            yield f"{name}: is listed{f' (line {entry.line})' if entry.line else ''} but missing here"
            continue
        digest, platforms = found[name]
        if entry.source.digest not in {None, digest}:
            yield f"{name}: is {digest}, the list says {entry.source.digest}"
        absent = [str(p) for p in entry.platforms if not any(t == str(p) or t.startswith(f"{p}/") for t in platforms)]
        if absent:
            yield f"{name}: the list has {', '.join(absent)}, found {', '.join(platforms) or 'no platform'}"


def _others(found: _Found, entries: tuple[ImageEntry, ...], known: Mapping[str, Collection[Digest]]) -> list[str]:
    """Images that the list does not name. `known`: the manifests of each repository. What is about one of them, a
    signature say, belongs to it."""
    names = sorted(set(found) - {str(entry.dest) for entry in entries})
    parts = ((name, *name.rsplit(":", 1)) for name in names)
    return [name for name, repository, tag in parts if subject_of_tag(tag) not in known.get(repository, ())]


def _other_problems(names: list[str]) -> Iterator[str]:
    for name in names:
        yield f"{name}: is not in the list"


def verify_storage(
    root: Path,
    entries: tuple[ImageEntry, ...] | None,
    listener: Listener,
    *,
    exact: bool = False,
    hash_elsewhere: HashElsewhere | None = None,
) -> VerifyReport:
    """Check a storage: every link, every manifest and its children, every blob's size and sha256. It has to have the
    images of the list; with `exact` no others. `hash_elsewhere` hashes blobs with these sizes, and says which have
    other bytes, and why they cannot be read; without it they are hashed here."""
    try:
        storage = need_storage(root)
    except LinkedDirectoryError:
        storage = Storage(root)  # the check names it
    check = _StorageCheck(storage, entries, exact=exact)
    check.hash_elsewhere = hash_elsewhere
    return check.run(listener)


class _StorageCheck:
    def __init__(self, storage: Storage, entries: tuple[ImageEntry, ...] | None, *, exact: bool) -> None:
        self.storage = storage
        self.entries = entries
        self.exact = exact
        self.hash_elsewhere: HashElsewhere | None = None
        self.wanted = {str(entry.dest): entry.platforms for entry in entries or ()}
        self.problems: list[str] = []
        self.differences: list[str] = []
        self.notes: list[str] = []
        self.sizes: dict[Digest, tuple[int, str]] = {}
        self.found: dict[str, tuple[Digest, tuple[str, ...]]] = {}
        self.images: dict[str, FoundImage] = {}
        self.there: dict[Digest, int] = {}
        self.damaged: set[Digest] = set()
        self.linked: dict[Digest, bool] = {}  # of the repository that is looked at

    def run(self, listener: Listener) -> VerifyReport:
        links = linked_directories(self.storage, listener)
        if links:  # what is behind them is not this storage's, and without it nothing can be said of the images
            self.problems += (f"{link} is a symbolic link; a storage has directories of its own" for link in links)
            return self._report(others=0)
        tags = {repository: self.storage.tags(repository) for repository in self.storage.repositories()}
        listener.count("verify", "tags and repositories read", sum(map(len, tags.values())) + len(tags))
        for repository in counted_by(listener, tags):
            self.linked = {}
            for tag in counted_by(listener, tags[repository]):
                self._check_tag(repository, tag)
            self._check_links(repository)
        self._check_blobs(listener)
        return self._report(others=len(self._compare()))

    def _report(self, *, others: int) -> VerifyReport:
        return VerifyReport(
            path=self.storage.root,
            images=len(self.found),
            blobs=len(self.sizes),
            bytes=sum(size for size, _user in self.sizes.values()),
            problems=tuple(dict.fromkeys(self.problems)),
            differences=tuple(dict.fromkeys(self.differences)),
            others=others,
            notes=tuple(self.notes),
            inventory=Inventory(images=tuple(self._images()), blobs=self.there, damaged=frozenset(self.damaged)),
        )

    def _images(self) -> Iterator[FoundImage]:
        """Those too of which no more than the tag can be read."""
        for name, (digest, platforms) in self.found.items():
            unread = FoundImage(
                image=name, digest=digest, platforms=platforms, partial=False, blobs=frozenset((digest,))
            )
            yield self.images.get(name, unread)

    def _compare(self) -> list[str]:
        """What is not as the list says; returns the images that it does not name."""
        if self.entries is None:
            return []
        known = {name: frozenset(self.storage.revisions(name)) for name in self.storage.repositories()}
        others = _others(self.found, self.entries, known)
        self.differences += _list_problems(self.found, self.entries)
        self.differences += _other_problems(others if self.exact else [])
        return others

    def _check_tag(self, repository: str, tag: str) -> None:
        name = f"{repository}:{tag}"
        top = self.storage.resolve(repository, tag)
        if top is None:
            self.problems.append(f"{name}: the tag's link is absent or damaged ({layout.tag_link(repository, tag)})")
            return
        self.found[name] = (top, ())
        try:
            closure = self.storage.closure(repository, top, self.wanted.get(name, ()))
        except ImagesFailedError as error:  # a platform of the list that the image never had
            self.differences.append(f"{name}: {error}")
            return
        except RegwrapError as error:
            self.problems.append(f"{name}: {error}")
            return
        if closure is None:
            self.problems.append(f"{name}: points to {top}, which is missing or not linked")
            return
        platforms = tuple[str, ...]()
        with suppress(LostBlobError):  # told of that blob
            platforms = tuple(map(str, shipped_platforms(closure, self.storage.read_config)))
        self.found[name] = (top, platforms)
        self.images[name] = FoundImage(
            image=name,
            digest=top,
            platforms=platforms,
            partial=bool(closure.missing or closure.omitted),
            blobs=frozenset((*(m.digest for m in closure.manifests), *(blob.digest for blob in closure.blobs))),
        )
        self._check_closure(name, repository, closure)
        if not self.storage.has_tag(repository, tag, top):
            path = layout.tag_index_link(repository, tag, top)
            self.problems.append(f"{name}: the tag's index link is absent or damaged ({path})")

    def _check_closure(self, name: str, repository: str, closure: Closure) -> None:
        self._check_missing(name, repository, closure)
        for manifest in closure.manifests:
            self.sizes[manifest.digest] = (len(manifest.raw), name)
        for blob in closure.blobs:
            if not self._is_linked(repository, blob.digest):
                self.problems.append(f"{name}: {repository} has no link to blob {blob.digest}")
            known = self.sizes.setdefault(blob.digest, (blob.size, name))
            if known[0] != blob.size:
                self.problems.append(f"{name}: blob {blob.digest} has two sizes: {blob.size} and {known[0]} bytes")

    def _is_linked(self, repository: str, layer: Digest) -> bool:
        """A repository's tags share most of their layers: each link is opened once."""
        known = self.linked.get(layer)
        if known is None:
            known = self.linked[layer] = self.storage.has_layer(repository, layer)
        return known

    def _check_missing(self, name: str, repository: str, closure: Closure) -> None:
        """A child may be left out on purpose if others are there, and the list does not want it."""
        omitted = (c.digest for c in closure.omitted if self.storage.has_revision(repository, c.digest))
        whole = [*(m.digest for m in closure.manifests if not isinstance(m, Index)), *omitted]
        for child in closure.missing:
            what = f"{name}: {child.platform or 'a manifest'} of its index ({child.digest}) is not here"
            lost = self.storage.has_lost(repository, child.digest) or not whole
            unlisted = self.differences if name in self.wanted else self.notes
            (self.problems if lost else unlisted).append(what)

    def _check_links(self, repository: str) -> None:
        storage = self.storage
        for kind, path_of, digests in (
            ("layer", layout.layer_link, storage.layers(repository)),
            ("manifest", layout.revision_link, storage.revisions(repository)),
        ):
            for digest in digests:
                seen = kind == "layer" and self.linked.get(digest, False)
                path = path_of(repository, digest)
                if not seen and storage.tree.stat(path) is None:
                    continue  # the registry deletes a link and leaves its directory; a tag that needs it says so
                if not seen and read_link(storage.tree, path) != digest:
                    self.problems.append(f"{repository}: a {kind}'s link is damaged ({path})")
                elif storage.blob_size(digest) is None:
                    # a registry's own collector deletes layers and leaves their links; what a tag needs says so itself
                    is_left = kind == "layer" and digest not in self.sizes
                    what = f"{repository}: a {kind}'s link points to {digest}, which is missing"
                    (self.notes if is_left else self.problems).append(what)

    def _check_blobs(self, listener: Listener) -> None:
        """Every blob, those that no tag needs included: one that is damaged would spoil a later push."""

        digests = sorted({*self.sizes, *self.storage.blobs()})
        found = {digest: self.storage.blob_size(digest) for digest in digests}
        listener.expect("verify", sum(filter(None, found.values())))
        wrong = self._wrong_elsewhere(found, listener.on_bytes)

        def check(digest: Digest) -> tuple[int | None, str]:
            size, user = self.sizes.get(digest, (None, "no tag needs it"))
            there = found[digest]
            if there is None:  # an empty directory that nobody needs is what the registry's collector leaves
                return None, f"{user}: blob {digest} is absent" if size is not None else ""
            if wrong is None or size not in {None, there}:
                listener.on_bytes(there)
            if size is not None and there != size:
                return there, f"{user}: blob {digest} has {there} bytes instead of {size}"
            unread = ""
            try:
                if wrong is not None:
                    is_valid, unread = digest not in wrong, wrong.get(digest, "")
                else:
                    is_valid = self.storage.hash_blob(digest) == digest
            except LostBlobError as error:
                is_valid, unread = False, error.detail
            return there, "" if is_valid else f"{user}: {hash_problem(digest, layout.blob_path(digest), unread)}"

        checked = map_in_order(check, digests, workers=HASH_THREADS, name="hash")
        for digest, (size, problem) in zip(digests, checked, strict=True):
            if size is not None:
                self.there[digest] = size
            if problem:
                self.problems.append(problem)
                self.damaged.add(digest)

    def _wrong_elsewhere(self, found: Mapping[Digest, int | None], on_bytes: OnBytes) -> Mapping[Digest, str] | None:
        if self.hash_elsewhere is None:
            return None
        known = [(digest, size) for digest, size in found.items() if size == self.sizes.get(digest, (size, ""))[0]]
        return self.hash_elsewhere([(digest, size) for digest, size in known if size is not None], on_bytes)


def needs_of(sizes: Mapping[Digest, int], closure: Closure | None) -> dict[Digest, int]:
    """All of an image with its bytes, as far as its manifests are at hand."""
    if closure is None:
        return {}
    digests = (*(m.digest for m in closure.manifests), *(b.digest for b in closure.blobs))
    return {digest: sizes[digest] for digest in digests if digest in sizes}
