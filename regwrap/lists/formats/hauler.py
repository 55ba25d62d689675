"""hauler: documents of kind Images, with annotations for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.lists import yaml_nodes
from regwrap.lists.formats.values import (
    BadValueError,
    Found,
    Rule,
    Verdict,
    is_null,
    items_of,
    needed,
    pairs_of,
    platforms_of,
    reference_of,
    says_nothing,
    scalar_of,
    text_of,
)
from regwrap.lists.formats.verdicts import OWN, READ, SIGNATURES, TLS
from regwrap.lists.yaml_nodes import Node, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterator

_HAULER: Final = dict.fromkeys(("apiVersion", "kind", "metadata", "spec"), READ)


_HAULER_COMMON: Final = {
    **dict.fromkeys(("platform", "exclude-extras"), READ),
    **dict.fromkeys(("key", "use-tlog-verify", "certificate-identity", "certificate-identity-regexp"), SIGNATURES),
    **dict.fromkeys(("certificate-oidc-issuer", "certificate-oidc-issuer-regexp"), SIGNATURES),
    "certificate-github-workflow-repository": SIGNATURES,
    **dict.fromkeys(("ca-file", "insecure-skip-tls-verify"), TLS),
}


_HAULER_IMAGE: Final = {
    **dict.fromkeys(("name", "rewrite"), READ),
    **_HAULER_COMMON,
    "local": Rule(Verdict.REFUSED, "reads the image from a Docker daemon: push it to a registry first"),
}


_HAULER_ANNOTATIONS: Final = {
    f"hauler.dev/{key}": rule
    for key, rule in {
        "registry": READ,
        **_HAULER_COMMON,
        **dict.fromkeys(("store", "retries"), OWN),
        **dict.fromkeys(
            ("rewrite", "prefix"),
            Rule(
                Verdict.REFUSED,
                "changes the images' destination: set rewrite: in the configuration, and remove the key",
            ),
        ),
    }.items()
}


def read_hauler(found: Found, root: Node) -> None:
    kind, version = scalar_of(root, "kind"), scalar_of(root, "apiVersion")
    if version is None or not (version.text or "").startswith("content.hauler.cattle.io/"):
        raise BadValueError(version or root, "`apiVersion`: expected content.hauler.cattle.io/v1")
    if kind and kind.text != "Images":
        _pass_over(found, root, kind)
        return
    fields = found.fields(root, "", _HAULER)
    common = _hauler_annotations(found, fields.get("metadata"))
    registry = text_of(common["registry"], "hauler.dev/registry") if "registry" in common else "docker.io"
    spec = found.fields(fields["spec"], "spec", {"images": READ}) if "spec" in fields else {}
    for node in items_of(spec["images"], "spec.images") if "images" in spec else ():
        with found.collected():
            _read_hauler_image(found, node, common, registry)


def _hauler_annotations(found: Found, metadata: Node | None) -> dict[str, Node]:
    pairs = pairs_of(metadata, "metadata") if metadata else ()
    annotations = next((value for key, value in pairs if key.text == "annotations" and not is_null(value)), None)
    if annotations is None:
        return {}
    own = tuple(pair for pair in pairs_of(annotations, "annotations") if f"{pair[0].text}".startswith("hauler.dev/"))
    mapping = yaml_nodes.Mapping(pairs=own, line=annotations.line, column=annotations.column)
    fields = found.fields(mapping, "", _HAULER_ANNOTATIONS)
    return {key.removeprefix("hauler.dev/"): value for key, value in fields.items()}


def _read_hauler_image(found: Found, node: Node, common: dict[str, Node], registry: str) -> None:
    fields = found.fields(node, "spec.images", _HAULER_IMAGE)
    name = needed(fields, "name", node, "spec.images")
    if all(says_nothing(of["exclude-extras"]) for of in (fields, common) if "exclude-extras" in of):
        found.note(name, "signatures and SBOMs, which hauler copies too, are not copied: only listed images are")
    rewrite = fields.get("rewrite")
    found.add(
        name,
        reference_of(name, text_of(name, "spec.images.name"), registry),
        dest=reference_of(rewrite, text_of(rewrite, "spec.images.rewrite"), None) if rewrite else None,
        platforms=platforms_of(fields.get("platform") or common.get("platform"), "platform"),
    )


def _pass_over(found: Found, root: Node, kind: Scalar) -> None:
    found.note(kind, f"documents of the kind {kind.text} are not read, only images are")
    added = (key for key, value in _keys_below(root) if key.text == "add-images" and not says_nothing(value))
    if key := next(added, None):
        raise BadValueError(key, "`add-images` requests the images of a chart: list them (helm template shows them)")


def _keys_below(node: Node) -> Iterator[tuple[Scalar, Node]]:
    pairs = node.pairs if isinstance(node, yaml_nodes.Mapping) else ()
    yield from pairs
    items = node.items if isinstance(node, Sequence) else tuple(value for _key, value in pairs)
    for item in items:
        yield from _keys_below(item)
