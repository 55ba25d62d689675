"""Find the images of a storage, of skopeo's dir: trees and of OCI layouts, each with all that belongs to it.

An index may be partial, as everywhere: children that are not there count as left out as long as another one is.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from regwrap.bundle.contents import BundleContents, BundleRepository
from regwrap.bundle.gather import Gathering
from regwrap.bundle.image_set import BlobFiles, ImageSet, PlainFiles, file_image_set
from regwrap.core import ocilayout
from regwrap.core.closure import Closure, check_sizes, closure_of
from regwrap.core.errors import IntegrityError, RegwrapError, UsageError
from regwrap.core.listener import SILENT, counted_by
from regwrap.core.manifest import MAX_MANIFEST_BYTES, Descriptor, Index
from regwrap.core.model import Digest, ImageRef, LayoutRef, ParseError, is_repository, is_tag
from regwrap.core.writing import read_file
from regwrap.storage.store import Storage, regular_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.core.listener import Listener
    from regwrap.core.ocilayout import LayoutEntry

VERSION: Final = "version"
VERSION_BYTES: Final = b"Directory Transport Version: 1.1\n"  # containers/image, directory/directory_dest.go
MANIFEST: Final = "manifest.json"


def child_manifest(digest: Digest) -> str:
    """The file of a manifest that an index names (containers/image, directory_transport.go)."""
    return f"{digest.hex}.{MANIFEST}"


def storage_image_set(storage: Storage, listener: Listener = SILENT) -> ImageSet:
    """Every tag of the storage. Raises IntegrityError with a line for each image that is not whole."""
    found = _Found(name=f"{storage.root}")
    tags = tuple((repository, tag) for repository in storage.repositories() for tag in storage.tags(repository))
    listener.count("read", "images", len(tags))
    for repository, tag in counted_by(listener, tags):
        with found.collected(f"{repository}:{tag}") as image:
            top = storage.resolve(repository, tag)
            closure = None if top is None else storage.closure(repository, top)
            for child in closure.missing if closure else ():
                if storage.has_lost(repository, child.digest):
                    raise IntegrityError(f"manifest {child.digest} of its index is missing")
            image.add(closure, storage)
    return found.image_set()


def history_image_set(storage: Storage, listener: Listener = SILENT) -> ImageSet:
    """All blobs and the links to layers, and no image: what a registry needs to answer "exists" to a push.

    Links to blobs that are not there are left out: they would spoil a later push.
    """
    sizes = {digest: size for digest in storage.blobs() if (size := storage.blob_size(digest)) is not None}
    names, repositories = tuple(storage.repositories()), list[BundleRepository]()
    listener.count("read", "repositories", len(names))
    for name in counted_by(listener, names):
        layers = tuple(d for d in storage.layers(name) if d in sizes and storage.has_layer(name, d))
        if layers:
            repositories.append(BundleRepository(name=name, manifests=(), layers=layers))
    contents = BundleContents(images=(), repositories=tuple(repositories), blobs=tuple(sizes.items()))
    return file_image_set(f"{storage.root}", contents, lambda _digest: storage)


def tree_image_set(place: str, *, named: str | None, listener: Listener = SILENT) -> ImageSet:
    """What `DIR` or `oci:DIR[:NAME]` holds. `named`: the repository, or REPOSITORY:TAG, of what says none itself.

    Raises UsageError (no images, no names) and IntegrityError with a line for each image that is not whole.
    """
    ref = LayoutRef.parse(place) if place.startswith("oci:") else None
    directory = Path(ref.directory if ref else place)
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory")
    if ref or ocilayout.is_layout(directory):
        return _layout_image_set(directory, ref.name if ref else None, named, listener)
    return _dir_image_set(directory, named, listener)


def _layout_image_set(directory: Path, chosen: str | None, named: str | None, listener: Listener) -> ImageSet:
    entries = (ocilayout.named_entry(directory, chosen),) if chosen else ocilayout.read_entries(directory)
    found = _Found(name=f"oci:{directory}")

    def path_of(digest: Digest) -> Path:
        return directory / ocilayout.blob_path(digest)

    listener.count("read", "images", len(entries))
    for entry in counted_by(listener, entries):
        with found.collected(full_name(entry.name if named else _own_name(entry), named)) as image:
            image.add(closure_of(entry.digest, lambda digest: _read(path_of(digest))), PlainFiles(path_of))
    return found.image_set()


def _own_name(entry: LayoutEntry) -> str | None:
    """containerd writes the tag alone as a name, and the whole one beside it; its registry is dropped as in a list."""
    if entry.containerd is None or not (entry.name is None or is_tag(entry.name)):
        return entry.name
    with suppress(ParseError):
        image = ImageRef.parse(entry.containerd)
        return f"{image.repository}:{image.tag}" if image.tag else entry.name
    return entry.name


def _dir_image_set(directory: Path, named: str | None, listener: Listener) -> ImageSet:
    found = _Found(name=f"{directory}")
    paths = sorted(_image_directories(directory))
    listener.count("read", "images", len(paths))
    for path in counted_by(listener, paths):
        relative = f"{path.relative_to(directory)}"
        with found.collected(full_name(None if relative == "." else relative, named)) as image:
            _add_dir(image, path)
    return found.image_set()


def _add_dir(image: _Image, path: Path) -> None:
    raw = _read(path / MANIFEST) or b""
    top = Digest.of(raw)

    def manifest_path(digest: Digest) -> Path:
        return path / (MANIFEST if digest == top else child_manifest(digest))

    closure = closure_of(top, lambda digest: _read(manifest_path(digest)))
    manifests = {manifest.digest for manifest in closure.manifests} if closure else set()
    image.add(closure, PlainFiles(lambda digest: manifest_path(digest) if digest in manifests else path / digest.hex))


def _image_directories(directory: Path) -> Iterator[Path]:
    for root, _names, files in os.walk(directory, onerror=_fail):
        if MANIFEST in files:
            yield Path(root)


def full_name(name: str | None, named: str | None) -> str:
    """REPOSITORY:TAG of an image that calls itself `name`: REPOSITORY:TAG, REPOSITORY/TAG or, with `named`, TAG."""
    text = named or "" if name is None else name
    if name is not None and is_tag(name) and named:
        text = f"{named}:{name}"
    head, colon, tail = text.rpartition(":")
    if not colon:
        head, _slash, tail = text.rpartition("/")
    if is_repository(head) and is_tag(tail):
        return f"{head}:{tail}"
    raise UsageError(
        f"{text!r} is not an image name: expected REPOSITORY:TAG" if text else "the image has no name",
        hint="--name REPOSITORY:TAG names a single image, --name REPOSITORY images that have only a tag",
    )


@dataclass(slots=True, kw_only=True)
class _Found:
    """All images of an image set, and what is wrong with any of them."""

    name: str
    gathering: Gathering = field(default_factory=Gathering)
    files: dict[Digest, BlobFiles] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def collected(self, name: str) -> _Image:
        if name in self.names:
            raise UsageError(f"{self.name} has two images with the name {name}")
        self.names.add(name)
        return _Image(found=self, name=name)

    def image_set(self) -> ImageSet:
        if self.problems:
            raise IntegrityError(f"{self.name} is damaged; nothing was written", problems=tuple(self.problems))
        if not self.names:
            raise UsageError(f"{self.name} has no images")
        return file_image_set(self.name, self.gathering.contents(), self.files.__getitem__)


@dataclass(slots=True, kw_only=True)
class _Image:
    """One image while it is looked at; what is wrong with it becomes a problem of the whole."""

    found: _Found
    name: str

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, RegwrapError):
            self.found.problems.append(f"{self.name}: {error}")
            return True
        return False

    def add(self, closure: Closure | None, files: BlobFiles) -> None:
        """Raises IntegrityError where something is absent, or of another size."""
        if closure is None:
            raise IntegrityError("its manifest is missing")
        if closure.missing and not closure.leaves:
            raise IntegrityError(f"its index {closure.top.digest} has none of its images")
        check_sizes(closure, files.blob_size)

        def read_config(blob: Descriptor) -> bytes:
            return files.read_blob(blob.digest) or b""

        omitted = closure.missing if isinstance(closure.top, Index) else ()
        repository, _, tag = self.name.rpartition(":")
        self.found.gathering.add(repository, tag, closure, omitted=omitted, read_config=read_config)
        for digest in (*(m.digest for m in closure.manifests), *(b.digest for b in closure.blobs)):
            self.found.files.setdefault(digest, files)


def _read(path: Path) -> bytes | None:
    """A small file; None where it is absent or larger than a manifest may be: its digest is wrong then anyhow."""
    size = regular_size(path)
    return read_file(path) if size is not None and size <= MAX_MANIFEST_BYTES else None


def _fail(error: OSError) -> None:
    """os.walk would go on without the images of a directory that cannot be read."""
    raise error
