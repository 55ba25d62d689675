"""Artifacts named by a URL or as a package: Flux and Helm (`oci://…`), Crossplane (`package:`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from regwrap.lists import yaml_nodes
from regwrap.lists.manifests.mapping import Fields, Mention, fields_of
from regwrap.lists.manifests.reference import has_host, references_in, without_scheme
from regwrap.lists.yaml_nodes import Node, Scalar

if TYPE_CHECKING:
    from collections.abc import Iterator

_OCI: Final = "oci://"
_RANGE: Final = re.compile(r".*[*^~<>=|, ].*|(?:.*\.)?[xX](?:\..*)?")
_NO_VERSION: Final = "it has no tag or full version: it may be a directory of charts; list the artifact yourself"


def oci_url(fields: Fields) -> Iterator[Mention]:
    """`url: oci://r.example/app` with a tag in it, or beside it: `ref: {tag: v1}`, `version: 1.2.3`."""
    for key, value in fields.values.items():
        text = value.text if isinstance(value, Scalar) else None
        if text is None or not text.startswith(_OCI):
            continue
        if references_in(text):
            yield Mention(key=key, node=value, text=without_scheme(text), used=(value,))
        else:
            yield _completed(key, value, without_scheme(text).rstrip("/"), fields)


def _completed(key: str, node: Node, name: str, fields: Fields) -> Mention:
    reference = fields.values.get("ref")
    beside = fields_of(reference, fields.context) if isinstance(reference, yaml_nodes.Mapping) else fields
    digest, tag = beside.text("digest"), beside.text("tag", "version", "targetrevision")
    chart = fields.text("chart", "name") if key in {"repository", "repourl"} else fields.text("chart")
    name = f"{name}/{chart}" if chart and not name.endswith(f"/{chart}") else name
    tag = "" if _RANGE.fullmatch(tag) else tag.replace("+", "_")  # as helm writes a version into a tag
    text = f"{name}@{digest}" if digest else f"{name}:{tag}" if tag else name
    return Mention(key=key, node=node, text=text, used=(node,), why=_NO_VERSION)


def package(fields: Fields) -> Iterator[Mention]:
    """`package: r.example/provider`, which needs a tag; with one it is found as any other reference."""
    value = fields.scalar("package")
    if value is not None and value.text and has_host(value.text):
        yield Mention(key="package", node=value, text=value.text.strip())
