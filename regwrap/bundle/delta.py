"""Only what a site lacks: what of a release's contents older releases had, or a receipt says is there. Pure, but
for reading these.

The same list and the same older releases give the same delta, in whatever order they are named.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regwrap.bundle.as_list import opened_listing
from regwrap.bundle.contents import BundleContents, RequiredBlob
from regwrap.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from regwrap.bundle.as_list import Listing
    from regwrap.core.model import Digest


@dataclass(frozen=True, slots=True)
class Older:
    """What a site has. `label` is the release's name or id, empty for a receipt's."""

    label: str
    blobs: Mapping[Digest, int]


def read_older(paths: Iterable[str]) -> tuple[Older, ...]:
    """Of bundles, whole or deltas, of their bundle.json, and of receipts. Raises UsageError, IntegrityError."""
    return tuple(map(_older, paths))


def _older(path: str) -> Older:
    with opened_listing(path, io.BytesIO()) as listing:
        return older_of(listing)


def older_of(listing: Listing) -> Older:
    """Raises UsageError for a list."""
    if listing.blobs is None:
        raise UsageError(
            f"--since {listing.images.name} is a list: it does not say which blobs a site has",
            hint="give the older release's bundle or bundle.json, or a receipt (regwrap verify DIR --receipt FILE)",
        )
    return Older("" if listing.contents is None else listing.contents.label, listing.blobs)


def since(contents: BundleContents, older: Sequence[Older]) -> BundleContents:
    """The same release without the blobs that one of `older` has; all of it where they have none."""
    known: dict[tuple[Digest, int], str] = {}
    # a release can be named, and is worth more than a receipt that happens to say the same
    for item in sorted(older, key=lambda item: (not item.label, item.label)):
        for blob in item.blobs.items():
            known.setdefault(blob, item.label)
    required = tuple(
        RequiredBlob(digest=digest, size=size, release=known[digest, size])
        for digest, size in contents.blobs
        if (digest, size) in known
    )
    return replace(contents, blobs=tuple(blob for blob in contents.blobs if blob not in known), required=required)
