"""Recognise a list in another tool's format by what the file holds, never by its name, and read it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from regwrap.core.errors import UsageError
from regwrap.lists import yaml_nodes
from regwrap.lists.formats.hauler import read_hauler
from regwrap.lists.formats.image_syncer import read_syncer, read_syncer_config
from regwrap.lists.formats.images_lock import read_lock
from regwrap.lists.formats.regsync import read_regsync
from regwrap.lists.formats.skopeo_sync import read_skopeo
from regwrap.lists.formats.values import EnoughError, Found, ListedImage, is_null, scalar_of, shown
from regwrap.lists.sniff import UTF8_BOM, first_line
from regwrap.lists.yaml_nodes import Node, Scalar
from regwrap.lists.yaml_read import parse_documents

MAX_DOCUMENT_BYTES: Final = 1024 * 1024

_HINT: Final = "docs/images-list.md says what is read of each format; in a plain list each line is an image"
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
    if len(data) > MAX_DOCUMENT_BYTES:
        raise UsageError(
            f"{name}: larger than {MAX_DOCUMENT_BYTES // 1024} KiB; lists in YAML or JSON are not", hint=_HINT
        )
    try:
        documents = parse_documents(_decoded(data, name), name)
    except UsageError as error:
        raise UsageError(error.message, hint=_HINT) from error
    roots = tuple(root for root in documents if not is_null(root))  # behind a last `---` is nothing
    tool, read = _recognised(roots, name)
    found = Found(tool=tool, name=name)
    try:
        for root in roots:
            with found.collected():
                read(found, root)
    except EnoughError:
        line, column, _message = found.problems[-1]
        found.problems.append((line, column + 1, "there is more that is wrong; it is not listed"))
    found.note(roots[0], f"read as a list of {tool}, with {len(found.images)} images")
    notes = sorted((line, message) for message, line in found.notes.items())
    return Document(images=tuple(found.images), notes=tuple(notes), problems=tuple(found.problems))


def _decoded(data: bytes, name: str) -> str:
    data = data.removeprefix(UTF8_BOM)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        where = f"{name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        raise UsageError(f"{where}: the byte 0x{data[error.start]:02x} is not UTF-8") from error
    # JSON may be indented with tabs, YAML not; within its texts it has none.
    return text.replace("\t", " ") if first_line(data)[:1] in {b"{", b"["} else text


_Read = Callable[[Found, Node], None]


def _recognised(roots: tuple[Node, ...], name: str) -> tuple[str, _Read]:
    kinds = [scalar_of(root, "kind") for root in roots]
    if any(kinds):
        return _by_kind(roots, kinds, name)
    if len(roots) > 1:
        where = f"{name}:{roots[1].line}:{roots[1].column}"
        raise UsageError(f"{where}: a second document; only hauler's lists have more than one", hint=_HINT)
    pairs = roots[0].pairs if roots and isinstance(roots[0], yaml_nodes.Mapping) else ()
    keys = {key.text: value for key, value in pairs}
    images = keys.get("images")
    if "sync" in keys:
        return "regsync", read_regsync
    if isinstance(images, yaml_nodes.Mapping) and keys.keys() <= {"auth", "images"}:
        return "image-syncer", read_syncer_config
    if any(_has_images(value) for value in keys.values()):
        return "skopeo sync", read_skopeo
    if any(re.search("[:/]", key or "") and not isinstance(value, yaml_nodes.Mapping) for key, value in keys.items()):
        return "image-syncer", read_syncer
    known = "skopeo sync, image-syncer, regsync, hauler and Carvel's ImagesLock"
    line = roots[0].line if roots else 1
    raise UsageError(f"{name}:{line}:1: YAML or JSON, but no list of images; known are those of {known}", hint=_HINT)


def _by_kind(roots: tuple[Node, ...], kinds: list[Scalar | None], name: str) -> tuple[str, _Read]:
    if len(kinds) == 1 and kinds[0] and kinds[0].text == "ImagesLock":
        return "imgpkg", read_lock
    for root, kind in zip(roots, kinds, strict=True):
        if kind is None or kind.text not in _HAULER_KINDS:
            where = f"{name}:{(kind or root).line}:{(kind or root).column}"
            what = f"the kind {shown(kind.text or '')}" if kind else "a document without a kind"
            known = "known are Images (hauler), and one ImagesLock"
            raise UsageError(f"{where}: {what} is no list of images; {known}", hint=_HINT)
    return "hauler", read_hauler


def _has_images(node: Node) -> bool:
    return isinstance(node, yaml_nodes.Mapping) and any(
        f"{key.text}".startswith("images") for key, scalar_of in node.pairs
    )
