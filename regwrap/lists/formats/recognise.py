"""Recognise a list in another tool's format by what the file holds, never by its name, and read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from regwrap.core.counts import counted
from regwrap.core.errors import UsageError
from regwrap.lists.formats.hauler import read_hauler
from regwrap.lists.formats.image_syncer import is_syncer, is_syncer_config, read_syncer, read_syncer_config
from regwrap.lists.formats.images_lock import read_lock
from regwrap.lists.formats.oc_mirror import read_oc_mirror
from regwrap.lists.formats.references import is_references, read_references
from regwrap.lists.formats.regsync import is_regsync, read_regsync
from regwrap.lists.formats.skopeo_sync import is_skopeo, read_skopeo
from regwrap.lists.formats.values import Found, ListedImage, is_null, scalar_of, shown
from regwrap.lists.formats.zarf import read_zarf
from regwrap.lists.sniff import UTF8_BOM
from regwrap.lists.yaml_nodes import Node, Scalar
from regwrap.lists.yaml_read import parse_documents

_HINT: Final = "see docs/images-list.md for which formats regwrap reads; in a plain list each line is an image"
_KNOWN: Final = (
    "sequences of references, and the lists of skopeo sync, image-syncer, regsync, hauler (Images), imgpkg"
    " (ImagesLock), zarf (ZarfPackageConfig) and oc-mirror (ImageSetConfiguration)"
)
_HAULER_KINDS: Final = ("Images", "Charts", "Files")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a file in another format lists. `notes` have a line, `problems` a line and a column."""

    images: tuple[ListedImage, ...]
    notes: tuple[tuple[int, str], ...]
    problems: tuple[tuple[int, int, str], ...]
    hint: str = _HINT


def read_document(data: bytes, name: str) -> Document:
    """The images of a document. Raises UsageError where it is none, or in no known format."""
    try:
        documents = parse_documents(_decoded(data, name), name)
    except UsageError as error:
        raise UsageError(error.message, hint=_HINT) from error
    roots = tuple(root for root in documents if not is_null(root))  # behind a last `---` is nothing
    tool, read = _recognised(roots, name)
    found = Found(tool=tool, name=name)
    for root in roots:
        with found.collected():
            read(found, root)
    found.note(roots[0], f"read as a list of {tool}, with {counted(len(found.images), 'image')}")
    notes = sorted((line, message) for message, line in found.notes.items())
    return Document(images=tuple(found.images), notes=tuple(notes), problems=tuple(found.problems))


def _decoded(data: bytes, name: str) -> str:
    data = data.removeprefix(UTF8_BOM)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        where = f"{name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        raise UsageError(f"{where}: the byte 0x{data[error.start]:02x} is not UTF-8") from error


_Read = Callable[[Found, Node], None]
# What a document without a kind is, by its keys; the first that fits counts.
_FORMATS: Final[tuple[tuple[str, Callable[[Node], bool], _Read], ...]] = (
    ("references", is_references, read_references),
    ("regsync", is_regsync, read_regsync),
    ("image-syncer", is_syncer_config, read_syncer_config),
    ("skopeo sync", is_skopeo, read_skopeo),
    ("image-syncer", is_syncer, read_syncer),
)
_KINDS: Final[dict[str | None, tuple[str, _Read]]] = {
    "ImagesLock": ("imgpkg", read_lock),
    "ZarfPackageConfig": ("zarf", read_zarf),
    "ImageSetConfiguration": ("oc-mirror", read_oc_mirror),
}


def _recognised(roots: tuple[Node, ...], name: str) -> tuple[str, _Read]:
    kinds = [scalar_of(root, "kind") for root in roots]
    if any(kinds):
        return _by_kind(roots, kinds, name)
    if len(roots) > 1:
        where = f"{name}:{roots[1].line}:{roots[1].column}"
        raise UsageError(f"{where}: a second document; only hauler's lists have more than one", hint=_HINT)
    for tool, fits, read in _FORMATS if roots else ():
        if fits(roots[0]):
            return tool, read
    line = roots[0].line if roots else 1
    raise UsageError(
        f"{name}:{line}:1: YAML or JSON, but not a list of images; supported are {_KNOWN}",
        hint="use regwrap list from-manifests for manifests and a chart's values",
    )


def _by_kind(roots: tuple[Node, ...], kinds: list[Scalar | None], name: str) -> tuple[str, _Read]:
    if len(kinds) == 1 and kinds[0] and kinds[0].text in _KINDS:
        return _KINDS[kinds[0].text]
    for root, kind in zip(roots, kinds, strict=True):
        if kind is None or kind.text not in _HAULER_KINDS:
            where = f"{name}:{(kind or root).line}:{(kind or root).column}"
            what = f"the kind {shown(kind.text or '')}" if kind else "a document without a kind"
            advice = f"known are {_KNOWN}; regwrap list from-manifests finds the images of other resources"
            raise UsageError(f"{where}: {what} is not a list of images; {advice}", hint=_HINT)
    return "hauler", read_hauler
