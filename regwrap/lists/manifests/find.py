"""All images of some files: those of `image:`, those that stand elsewhere, and what could not be read, as notes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from operator import methodcaller
from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.lists.formats.values import BadValueError, quoted, reference_of
from regwrap.lists.manifests.mapping import Mention, plain
from regwrap.lists.manifests.walk import Walk
from regwrap.lists.yaml_read import read_documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from regwrap.core.model import Digest, ImageRef
    from regwrap.lists.yaml_nodes import Node

MAX_MANIFEST_BYTES: Final = 64 * 1024 * 1024
_ORDER: Final = methodcaller("sort_key")
_MAX_NOTES: Final = 100
# $(params.NAME) of Tekton, {{inputs.parameters.NAME}} of Argo: filled in by a parameter of the same document
_PARAMETER: Final = re.compile(r"(?:\$\(|\{\{ *)[\w.]*params?(?:eters)?(?:\.|\[[\"'])([\w-]+)(?:[\"']\])?(?:\)| *\}\})")
_IS_LATEST: Final = "no tag: it runs as latest, so latest is listed"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """An image that no `image:` names, and where it stands."""

    image: ImageRef
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImages:
    """Sorted, each once, with registry and tag or digest. `notes` are about images, `problems` about what could not be
    read, a line each."""

    images: tuple[ImageRef, ...]
    elsewhere: tuple[Elsewhere, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    noted: int
    files: int

    @property
    def all(self) -> tuple[ImageRef, ...]:
        return (*self.images, *(other.image for other in self.elsewhere))

    @property
    def summary(self) -> str:
        return (
            f"{counted(len(self.images), 'image')} from image:, {len(self.elsewhere)} from elsewhere,"
            f" {self.noted + len(self.problems)} noted, in {counted(self.files, 'file')}"
        )


def find_images(files: Iterable[tuple[str, bytes]], *, is_sure: bool = False) -> FoundImages:
    """The images of all documents in `files`, pairs of name and content. `is_sure`: only those of `image:`."""
    found = _Found()
    names = []
    for name, data in files:
        names.append(name)
        for document in _documents(name, data, found):
            found.add(name, document)
    return found.result(len(names), is_sure=is_sure)


def _documents(name: str, data: bytes, found: _Found) -> list[Node]:
    problems = found.problems
    if len(data) > MAX_MANIFEST_BYTES:
        problems.append(f"{name}: larger than {MAX_MANIFEST_BYTES // 1024**2} MiB; split it")
        return []
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(f"{name}: not UTF-8 (byte {error.start + 1})")
        return []
    documents, odd = read_documents(text)
    odd.sort(key=lambda oddity: (oddity.line, oddity.column))
    notes = [(f"{name}:{oddity.line}:{oddity.column}: {oddity.text}", oddity.is_harmless) for oddity in odd]
    found.notes |= dict.fromkeys(text for text, is_harmless in notes if is_harmless)
    grave = [text for text, is_harmless in notes if not is_harmless]
    problems += grave[:_MAX_NOTES]
    if len(grave) > _MAX_NOTES:
        problems.append(f"{name}: {counted(len(grave) - _MAX_NOTES, 'more problem')}")
    return documents


@dataclass(slots=True)
class _Found:
    images: set[ImageRef] = field(default_factory=set)
    elsewhere: dict[ImageRef, str] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, name: str, document: Node) -> None:
        mentions = list(Walk().mentions(document))
        filled = {plain(mention.key) for mention in mentions if not mention.is_sure}
        for mention in mentions:
            if (parameter := _PARAMETER.fullmatch(mention.text)) and plain(parameter[1]) in filled:
                continue
            try:
                self._add(f"{name}:{mention.node.line}", mention)
            except BadValueError as bad:
                self.notes[f"{name}:{mention.node.line}: {quoted(mention.key)}: {bad}"] = None

    def _add(self, where: str, mention: Mention) -> None:
        if not mention.text:
            raise BadValueError(mention.node, mention.why)
        image = reference_of(mention.node, mention.text)
        if not image.tag and not image.digest:
            if not mention.is_latest:
                raise BadValueError(mention.node, f"{image}: {mention.why}")
            self.notes[f"{where}: {quoted(mention.key)}: {image}: {_IS_LATEST}"] = None
            image = replace(image, tag="latest")
        if mention.is_sure:
            self.images.add(image)
        else:
            self.elsewhere.setdefault(image, _printable(f"{where} {mention.key}"))

    def result(self, files: int, *, is_sure: bool) -> FoundImages:
        kept = _without_vaguer(self.images if is_sure else self.images | self.elsewhere.keys())
        images = kept & self.images
        elsewhere = {} if is_sure else {image: self.elsewhere[image] for image in sorted(kept - images, key=_ORDER)}
        shown = [*self.notes, *_shared_dests(kept)]
        more = [counted(len(shown) - _MAX_NOTES, "more note")] if len(shown) > _MAX_NOTES else []
        return FoundImages(
            images=tuple(sorted(images, key=_ORDER)),
            elsewhere=tuple(Elsewhere(image, where) for image, where in elsewhere.items()),
            notes=(*shown[:_MAX_NOTES], *more),
            problems=tuple(self.problems),
            noted=len(self.notes),
            files=files,
        )


def _printable(text: str) -> str:
    """As it can stand in a comment of a list: keys are anybody's."""
    return "".join(char if char.isprintable() else "?" for char in text)[:200]


def _without_vaguer(images: set[ImageRef]) -> set[ImageRef]:
    """Without a tag, or a digest, that another mention has together with the one digest, or a tag."""
    digests: dict[ImageRef, set[Digest]] = {}
    for image in images:
        if image.digest and image.tag:
            digests.setdefault(replace(image, digest=None), set()).add(image.digest)
    tagged = {replace(image, tag=None) for image in images if image.digest and image.tag}
    return {image for image in images if image not in tagged and (image.digest or len(digests.get(image, ())) != 1)}


def _shared_dests(images: set[ImageRef]) -> Iterator[str]:
    """Lines that a list cannot have together, since the host is dropped: told here, an error where it is read."""
    by_dest: dict[ImageRef, list[ImageRef]] = {}
    for image in sorted(images, key=_ORDER):
        if image.tag:
            by_dest.setdefault(replace(image, registry=None, digest=None), []).append(image)
    for dest, sources in by_dest.items():
        if len(sources) > 1:
            names = " and ".join(map(str, sources))
            yield f"{names} have the same destination {dest}: keep one, or set rewrite: {{keep_host: true}}"
