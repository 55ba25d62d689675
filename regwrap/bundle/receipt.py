"""A receipt: what was found where, when, by whom and how closely; also the site's inventory, and a list of its images.

docs/receipt.md describes the document; a reader of version 1 ignores keys that it does not know. The same state gives
the same receipt, but for time and host.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap import __version__
from regwrap.core.errors import UsageError
from regwrap.core.fields import a_list, a_switch, a_text, an_integer, an_object, field, json_object, list_of, or_none
from regwrap.core.manifest import a_digest, a_size
from regwrap.core.model import Destination, Digest, ImageRef, Platform, is_repository, is_tag
from regwrap.lists.imagelist import ImageEntry, ImageList
from regwrap.lists.lock import LockedImage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from regwrap.bundle.examine import VerifyReport
    from regwrap.bundle.inventory import FoundImage

VERSION: Final = 1
MAX_RECEIPT_BYTES: Final = 64 * 1024 * 1024
RECEIPT_HEAD: Final = f'{{\n "receipt": {VERSION},'.encode()
_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}")
VALID, MISSING, DIFFERS, DAMAGED = "valid", "missing", "differs", "damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptFacts:
    """What a check does not say of itself. `kind` is bundle, storage or registry; `looked_at` how closely; `release`
    and `id` are empty where the list is no release."""

    time: str
    host: str
    target: str
    kind: str
    looked_at: str
    list: str
    release: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptImage:
    """`digest` is None where it is missing. `listed` is None without a list. `partial`: some platforms are left out."""

    image: str
    digest: Digest | None
    platforms: tuple[str, ...]
    partial: bool
    listed: bool | None
    verdict: str
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a check of a site found: `verdict`, each image, and the problems."""

    facts: ReceiptFacts
    verdict: str
    images: tuple[ReceiptImage, ...]
    problems: tuple[str, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    blobs: Mapping[Digest, int]
    regwrap: str = __version__

    @property
    def total(self) -> int:
        """Bytes of all blobs."""
        return sum(self.blobs.values())


def receipt_of(report: VerifyReport, facts: ReceiptFacts, entries: tuple[ImageEntry, ...] | None) -> Receipt:
    """The receipt of a check; `entries` are the list's, None without one."""
    inventory, listed = report.inventory, None if entries is None else {str(entry.dest) for entry in entries}
    found = {image.image: image for image in inventory.images}
    damage, others = _by_image(report.problems), _by_image(report.differences)
    return Receipt(
        facts=facts,
        verdict=DAMAGED if report.problems else DIFFERS if report.differences else VALID,
        images=tuple(
            _image(name, found.get(name), listed, _damaged(name, found, damage, inventory.damaged), others)
            for name in sorted({*found, *(listed or ())})
        ),
        problems=report.problems,
        differences=report.differences,
        notes=report.notes,
        blobs=dict(sorted(inventory.blobs.items())),
    )


def _by_image(lines: Iterable[str]) -> dict[str, list[str]]:
    """What is said of each image: every line begins with what it is about."""
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, text = line.partition(": ")
        found.setdefault(name, []).append(text)
    return found


def _damaged(
    name: str, found: Mapping[str, FoundImage], damage: Mapping[str, list[str]], damaged: frozenset[Digest]
) -> tuple[str, ...]:
    blobs = sorted(found[name].blobs & damaged) if name in found else ()
    return (*damage.get(name, ()), *(f"blob {digest} is damaged" for digest in blobs))


def _image(
    name: str,
    found: FoundImage | None,
    listed: set[str] | None,
    damage: tuple[str, ...],
    differences: Mapping[str, list[str]],
) -> ReceiptImage:
    others = differences.get(name, ())
    verdict = MISSING if found is None else DAMAGED if damage else DIFFERS if others else VALID
    return ReceiptImage(
        image=name,
        digest=found.digest if found else None,
        platforms=found.platforms if found else (),
        partial=found is not None and found.partial,
        listed=None if listed is None else name in listed,
        verdict=verdict,
        problems=(*damage, *others),
    )


def receipt_text(receipt: Receipt) -> str:
    """The JSON document; its first key says what it is."""
    facts = receipt.facts
    document = {
        "receipt": VERSION,
        "regwrap": receipt.regwrap,
        "time": facts.time,
        "host": facts.host,
        "target": facts.target,
        "kind": facts.kind,
        "looked_at": facts.looked_at,
        "list": facts.list or None,
        "release": {"name": facts.release or None, "id": facts.id} if facts.id else None,
        "verdict": receipt.verdict,
        "images": [
            {
                "image": image.image,
                "digest": f"{image.digest}" if image.digest else None,
                "platforms": list(image.platforms),
                "partial": image.partial,
                "listed": image.listed,
                "verdict": image.verdict,
                "problems": list(image.problems),
            }
            for image in receipt.images
        ],
        "problems": list(receipt.problems),
        "differences": list(receipt.differences),
        "notes": list(receipt.notes),
        "blobs": {f"{digest}": size for digest, size in receipt.blobs.items()},
    }
    return json.dumps(document, indent=1) + "\n"


def parse_receipt(data: bytes, name: str) -> tuple[ImageList, dict[Digest, int]]:
    """The images that were there, by digest, and all blobs that were not called damaged, with their sizes. Raises
    UsageError."""
    try:
        document = json_object(data)
        field(document, "receipt", an_integer(VERSION, VERSION))
        found = field(document, "images", list_of(_parsed_image))
        wrong = set(_SHA256.findall("\n".join(field(document, "problems", list_of(a_text), []))))
        there = field(document, "blobs", an_object)
        blobs = {Digest.parse(key): a_size(size) for key, size in there.items() if key not in wrong}
    except ValueError as error:
        raise _no_receipt(name, error) from error
    return ImageList(name=name, entries=tuple(entry for entry in found if entry is not None), notes=()), blobs


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptSummary:
    """A receipt without its images: how many it has, and how many lines of damage and differences."""

    facts: ReceiptFacts
    verdict: str
    images: int
    problems: int


def parse_summary(data: bytes, name: str) -> ReceiptSummary:
    """Raises UsageError."""
    try:
        document = json_object(data)
        field(document, "receipt", an_integer(VERSION, VERSION))
        release = field(document, "release", or_none(an_object)) or {}
        texts = {key: field(document, key, a_text) for key in ("time", "host", "target", "kind", "looked_at")}
        return ReceiptSummary(
            facts=ReceiptFacts(
                **texts,
                list=field(document, "list", or_none(a_text)) or "",
                release=field(release, "name", or_none(a_text)) or "",
                id=field(release, "id", or_none(a_text)) or "",
            ),
            verdict=field(document, "verdict", a_text),
            images=len(field(document, "images", a_list)),
            problems=sum(len(field(document, key, a_list)) for key in ("problems", "differences")),
        )
    except ValueError as error:
        raise _no_receipt(name, error) from error


def _no_receipt(name: str, error: Exception) -> UsageError:
    return UsageError(
        f"{name} is no receipt of version {VERSION}: {error}", hint="write one with regwrap verify --receipt FILE"
    )


def _parsed_image(value: object) -> ImageEntry | None:
    item = an_object(value)
    digest = field(item, "digest", or_none(a_digest))
    repository, _, tag = field(item, "image", a_text).rpartition(":")
    if not is_repository(repository) or not is_tag(tag):
        raise ValueError(f"{repository}:{tag} is not the name of an image")
    platforms = field(item, "platforms", list_of(lambda text: Platform.parse(a_text(text))))
    if digest is None:
        return None
    chosen = platforms if field(item, "partial", a_switch) else ()
    source = ImageRef(registry=None, repository=repository, tag=tag, digest=digest)
    dest = Destination(repository, tag)
    line = LockedImage(source=source, dest=dest, chosen=chosen, platforms=chosen, size=None).line
    return ImageEntry(source=source, dest=dest, platforms=chosen, line=0, text=line, locked=True)
