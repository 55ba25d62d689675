"""skopeo sync: registry -> images -> repository -> tags and digests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.lists.formats.values import (
    BadValueError,
    Found,
    is_null,
    items_of,
    keys_of,
    pairs_of,
    quoted,
    reference_of,
    text_of,
)
from regwrap.lists.formats.verdicts import CREDENTIALS, PATTERN, READ, TLS

if TYPE_CHECKING:
    from regwrap.lists.yaml_nodes import Node, Scalar

_SKOPEO: Final = {
    "images": READ,
    "images-by-tag-regex": PATTERN,
    "images-by-semver": PATTERN,
    "credentials": CREDENTIALS,
    "tls-verify": TLS,
    "cert-dir": TLS,
}


def is_skopeo(root: Node) -> bool:
    return any(key.startswith("images") for section in keys_of(root).values() for key in keys_of(section))


def read_skopeo(found: Found, root: Node) -> None:
    for registry, section in pairs_of(root, ""):
        with found.collected():
            fields = found.fields(section, f"{registry.text}", _SKOPEO)
            for repository, tags in pairs_of(fields["images"], f"{registry.text}.images") if "images" in fields else ():
                with found.collected():
                    _read_skopeo_tags(found, f"{registry.text}/{repository.text}", repository, tags)


def _read_skopeo_tags(found: Found, name: str, repository: Scalar, tags: Node) -> None:
    if is_null(tags) or not items_of(tags, name):
        raise BadValueError(repository, f"{quoted(name)} without tags means all of them: list them (skopeo list-tags)")
    for node in items_of(tags, name):
        with found.collected():
            tag = text_of(node, name)
            found.add(node, reference_of(node, f"{name}{'@' if ':' in tag else ':'}{tag}"))
