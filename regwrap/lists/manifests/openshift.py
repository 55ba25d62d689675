"""OpenShift's ImageStreams: tags that come from references to images elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regwrap.lists.manifests.mapping import Fields, Mention

if TYPE_CHECKING:
    from collections.abc import Iterator


def image_stream(fields: Fields) -> Iterator[Mention]:
    """`from: {kind: DockerImage, name: r.example/js:22}`; other kinds are names within the cluster."""
    name = fields.scalar("name")
    if name is not None and fields.text("kind") == "DockerImage":
        yield Mention(key="from.name", node=name, text=fields.text("name"), is_sure=True)
