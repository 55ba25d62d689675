"""Bundles without GNU tar, to be damaged at will: the same bytes, as tests/tools/test_pack.py makes sure."""

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from regwrap.bundle.contents import BundleContents
from regwrap.bundle.delta import Older
from regwrap.bundle.image_set import ImageSet, valid_image_set
from regwrap.bundle.read import Bundle, hash_all, opened_bundle
from regwrap.bundle.select import select_images
from regwrap.core.model import Destination, ImageRef, Platform
from regwrap.lists.imagelist import ImageEntry
from regwrap.storage.hashing import hash_problem
from regwrap.storage.store import Storage
from tests.builders import Image, make_storage

BLOCK, RECORD = 512, 64 * 1024


@dataclass(frozen=True)
class Part:
    """A member: its name and bytes. `kind` is the header's type; `size_field` stands in for the right size."""

    name: str
    data: bytes
    kind: bytes = b"0"
    size_field: bytes = b""


@contextmanager
def bundle_image_set(path: Path) -> Iterator[ImageSet]:
    """The bundle's images, as every command has them that reads a bundle."""
    with opened_bundle(path) as bundle:
        yield valid_image_set(bundle)


def dest_of(name: str) -> Destination:
    repository, _, tag = name.rpartition(":")
    return Destination(repository, tag)


def listed(name: str, *platforms: str, digest: str = "", line: int = 1) -> ImageEntry:
    """The entry of `images.list` that wants `REPOSITORY:TAG`, from anywhere."""
    return ImageEntry(
        source=ImageRef.parse(f"example.com/{name}{digest and f'@{digest}'}"),
        dest=dest_of(name),
        platforms=tuple(map(Platform.parse, platforms)),
        line=line,
        text=name,
    )


def contents_of(root: Path, *entries: ImageEntry | str) -> BundleContents:
    """What a bundle of `entries` out of the storage at `root` has to hold."""
    return select_images(Storage(root), tuple(listed(e) if isinstance(e, str) else e for e in entries)).contents


def parts_of(contents: BundleContents, root: Path) -> list[Part]:
    """Every member of the bundle, blobs read from the storage at `root`."""
    links = [
        Part(member.path, (root / member.path).read_bytes() if member.link is None else f"{member.link}".encode())
        for member in contents.members
    ]
    return [Part("bundle.json", contents.to_json()), *links]


def packed(parts: Iterable[Part]) -> bytes:
    """The tar's bytes: members, two zero blocks, zeros up to a whole record."""
    buffer = io.BytesIO()
    for part in parts:
        buffer.write(member(part))
    buffer.write(bytes(2 * BLOCK))
    return filled(buffer.getvalue(), RECORD)


def member(part: Part) -> bytes:
    """A member as GNU tar writes it, a long name in a member of its own before it."""
    name = part.name.encode()
    before = b""
    if len(name) > 100:
        before = header(b"././@LongLink", len(name) + 1, b"L") + filled(name + b"\0", BLOCK)
    return before + header(name[:100], len(part.data), part.kind, part.size_field) + filled(part.data, BLOCK)


def header(name: bytes, size: int, kind: bytes = b"0", size_field: bytes = b"") -> bytes:
    """A header of GNU's format with owner 0, mode 0644 and time 0."""
    fields = (
        name.ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", size_field or b"%011o\0" % size,
        b"00000000000\0", b" " * 8, kind, bytes(100), b"ustar  \0",
    )  # fmt: skip
    return summed(b"".join(fields).ljust(BLOCK, b"\0"))


def summed(block: bytes) -> bytes:
    """The header with its checksum put right."""
    total = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def filled(data: bytes, unit: int) -> bytes:
    return data + bytes(-len(data) % unit)


def wrong_blobs(bundle: Bundle) -> list[str]:
    """A line for each blob whose bytes are wrong."""
    return [hash_problem(digest) for digest in hash_all(bundle.copy, bundle.contents.blobs, lambda _bytes: None)]


def make_bundle(place: Path, images: Mapping[str, Image], name: str = "") -> Path:
    """`place/bundle.tar`, the release `name` with `images` by `REPOSITORY:TAG`, out of the storage `place/archive`."""
    root = make_storage(place / "archive", images)
    path = place / "bundle.tar"
    path.write_bytes(packed(parts_of(replace(contents_of(root, *images), name=name), root)))
    return path


def write_bundle(path: Path, contents: BundleContents, root: Path) -> Path:
    """The bundle with these contents, blobs read from the storage at `root`."""
    path.write_bytes(packed(parts_of(contents, root)))
    return path


def older(contents: BundleContents) -> Older:
    """What a site has after that release."""
    return Older(contents.label, contents.sizes)
