"""What is about a manifest, as the API of the distribution specification 1.1 lists it ("Listing Referrers").

Bundles and storages carry it as the index that stands under the tag `sha256-HEX`, where registries without that API
keep it; so the answer is that index, without what is not here.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import IntegrityError
from regwrap.core.manifest import OCI_INDEX, Index, children_of, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from regwrap.bundle.by_repository import LocalSource
    from regwrap.core.model import Digest

_INDEX_OF: Final = "sha256-{}"


def referrers_of(
    contents: LocalSource, repository: str, subject: Digest, artifact_type: str, fetch: Callable[[Digest], bytes | None]
) -> bytes:
    """An index of the manifests that are about `subject`; of all types where `artifact_type` is empty. Whatever lies
    there that is no index lists nothing. `fetch` gives a manifest of the repository, or None."""
    tagged = contents.resolve(repository, _INDEX_OF.format(subject.hex))
    raw = None if tagged is None else fetch(tagged)
    listed = [] if raw is None else _listed(raw, fetch)
    shown = [item for item in listed if artifact_type in ("", item.get("artifactType"))]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": shown}).encode()


def _listed(raw: bytes, fetch: Callable[[Digest], bytes | None]) -> list[dict[str, object]]:
    """The index's own descriptors, which hold more (annotations) than those that we read. What an index says of one
    type is left as it is: who copies the list makes the same index of it."""
    with suppress(IntegrityError):
        manifest = parse_manifest(raw)
        if isinstance(manifest, Index):
            return [said for child, said in children_of(manifest) if fetch(child.digest)]
    return []
