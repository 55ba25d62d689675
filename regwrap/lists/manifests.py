"""Images in YAML that is no list of images: rendered manifests, other resources, values of Helm charts. Pure.

An image is looked for by how it is written, not by the kind of the document: so every workload that there is, and will
be, is read alike. What looks like an image and can't be read is told, never dropped in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import UsageError
from regwrap.core.model import Digest, ImageRef, ParseError
from regwrap.lists import yaml_nodes
from regwrap.lists.formats.values import BadValueError, quoted, reference_of
from regwrap.lists.yaml_nodes import Node, Scalar, Sequence
from regwrap.lists.yaml_read import parse_documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_MANIFEST_BYTES: Final = 16 * 1024 * 1024
_HINT: Final = "helm template and kustomize build write plain YAML; yq 'explode(.)' writes aliases out"
# What is there now, and what others wrote about it: it names images in ways of its own.
_NOT_WANTED: Final = ("status", "metadata")
_SCHEMAS: Final = "CustomResourceDefinition"
_WITH_REPOSITORY: Final = {"tag", "digest", "registry", "sha"}
_MAX_NOTES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImages:
    """Sorted, each once, with registry and tag or digest. `notes` are about what could not be read, a line each."""

    images: tuple[ImageRef, ...]
    notes: tuple[str, ...]


def find_images(files: Iterable[tuple[str, bytes]]) -> FoundImages:
    """The images of all documents in `files`, pairs of name and content. Raises UsageError where one is not YAML."""
    images: set[ImageRef] = set()
    notes: dict[str, None] = {}
    for name, data in files:
        for mention in (found for document in _documents(name, data) for found in _mentions(document)):
            try:
                images.add(_image_of(mention))
            except BadValueError as bad:
                notes[f"{name}:{bad.node.line}: {quoted(mention.key)}: {bad}"] = None
    images = _without_vaguer(images)
    shown = [*notes, *_shared_dests(images)]
    more = [f"{len(shown) - _MAX_NOTES} notes more"] if len(shown) > _MAX_NOTES else []
    return FoundImages(images=tuple(sorted(images)), notes=(*shown[:_MAX_NOTES], *more))


def _documents(name: str, data: bytes) -> tuple[Node, ...]:
    if len(data) > MAX_MANIFEST_BYTES:
        raise UsageError(f"{name}: larger than {MAX_MANIFEST_BYTES // 1024**2} MiB", hint="give it in parts")
    try:
        return parse_documents(data.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not UTF-8 (byte {error.start + 1})", hint=_HINT) from error
    except UsageError as error:
        raise UsageError(error.message, hint=_HINT) from error


@dataclass(frozen=True, slots=True)
class _Mention:
    """A place where an image is named: by one text, or by its parts."""

    key: str
    node: Node
    text: str


def _mentions(node: Node) -> Iterator[_Mention]:
    pending = [node]
    while pending:
        match pending.pop():
            case Sequence(items=items):
                pending += reversed(items)
            case yaml_nodes.Mapping() as mapping:
                yield from _named_in(mapping)
                pending += reversed(_children(mapping))
            case _:
                pass


def _children(mapping: yaml_nodes.Mapping) -> list[Node]:
    texts = _texts(mapping)
    is_resource = "kind" in texts and "apiVersion" in texts
    if is_resource and texts["kind"].text == _SCHEMAS:
        return []
    return [value for key, value in mapping.pairs if not (is_resource and key.text in _NOT_WANTED)]


def _named_in(mapping: yaml_nodes.Mapping) -> Iterator[_Mention]:
    texts = _texts(mapping)
    for key, value in mapping.pairs:
        name = f"{key.text}"
        if isinstance(value, Scalar):
            text = value.text or ""
            if name == "image" or (name.endswith("Image") and _is_reference(text)):
                yield _Mention(name, value, text)
        elif name == "image" and isinstance(value, yaml_nodes.Mapping):
            yield from _mapped(value)
    if "repository" in texts and texts.keys() & _WITH_REPOSITORY:
        yield _Mention("repository", texts["repository"], _joined({key: texts[key].text or "" for key in texts}))


def _mapped(value: yaml_nodes.Mapping) -> Iterator[_Mention]:
    texts = _texts(value)
    if "reference" in texts:  # a volume of a Pod that is an image
        yield _Mention("image.reference", texts["reference"], texts["reference"].text or "")
    elif "tag" in texts and "repository" not in texts:
        yield _Mention("image", value, "")


def _joined(parts: Mapping[str, str]) -> str:
    """Of Helm's values; nothing where the chart has still to fill in the version."""
    name = "/".join(part for part in (parts.get("registry", ""), parts["repository"]) if part)
    sha = parts.get("sha", "").removeprefix("sha256:")
    tag, digest = parts.get("tag", ""), parts.get("digest") or (f"sha256:{sha}" if sha else "")
    return f"{name}{':' if tag else ''}{tag}{'@' if digest else ''}{digest}" if tag or digest else ""


def _is_reference(text: str) -> bool:
    """Whether a text under a key such as `sidecarImage` says so plainly that it is one: it may be a picture."""
    try:
        image = ImageRef.parse(text)
    except ParseError:
        return False
    return image.tag is not None or image.digest is not None


def _image_of(mention: _Mention) -> ImageRef:
    if not mention.text:
        raise BadValueError(mention.node, "says no whole image; what fills it in (helm template) has to come first")
    image = reference_of(mention.node, mention.text)
    return image if image.tag or image.digest else replace(image, tag="latest")


def _texts(mapping: yaml_nodes.Mapping) -> dict[str, Scalar]:
    return {f"{key.text}": value for key, value in mapping.pairs if isinstance(value, Scalar)}


def _without_vaguer(images: set[ImageRef]) -> set[ImageRef]:
    """Without a tag, or a digest, that another mention has together with the one digest, or a tag."""
    digests: dict[ImageRef, set[Digest]] = {}
    for image in images:
        if image.digest and image.tag:
            digests.setdefault(replace(image, digest=None), set()).add(image.digest)
    tagged = {replace(image, tag=None) for image in images if image.digest and image.tag}
    return {image for image in images if image not in tagged and (image.digest or len(digests.get(image, ())) != 1)}


def _shared_dests(images: set[ImageRef]) -> Iterator[str]:
    """Lines that a list can't have together, since the host is dropped: told here, an error where it is read."""
    by_dest: dict[ImageRef, list[ImageRef]] = {}
    for image in sorted(images):
        if image.tag:
            by_dest.setdefault(replace(image, registry=None, digest=None), []).append(image)
    for dest, sources in by_dest.items():
        if len(sources) > 1:
            names = " and ".join(map(str, sources))
            yield f"{names} would all go to {dest}: choose one, or set rewrite: {{keep_host: true}}"
