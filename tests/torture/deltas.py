"""Deltas that nobody makes by mistake, and sites that only seem to have what one requires. All of them are refused."""

import json
from collections.abc import Callable
from typing import Any, Final

from regwrap.bundle.contents import padded
from regwrap.core.model import Digest
from regwrap.storage import layout
from tests.bundles import BLOCK, Part, member
from tests.torture.ground import Ground, Place
from tests.torture.inputs import Make, json_of


def _document(change: Callable[[Any], object]) -> Make:
    """The delta with another bundle.json; all behind it stays."""

    def make(ground: Ground, place: Place) -> None:
        raw = json_of(ground, "delta.tar")
        document = json.loads(raw)
        change(document)
        changed = Part("bundle.json", json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")
        rest = (ground.templates / "delta.tar").read_bytes()[BLOCK + padded(len(raw)) :]
        (place.root / "delta.tar").write_bytes(member(changed) + rest)

    return make


def _required(ground: Ground) -> Digest:
    """The largest blob that the delta requires."""
    required = json.loads(json_of(ground, "delta.tar"))["required"]
    return Digest.parse(max(required, key=lambda blob: blob["size"])["digest"])


def _there(change: Callable[[bytes], bytes]) -> Make:
    """What the site has in the place of a required blob."""

    def make(ground: Ground, place: Place) -> None:
        path = place.root / "site" / layout.blob_path(_required(ground))
        path.write_bytes(change(path.read_bytes()))

    return make


def _of_required(key: str, value: object) -> Make:
    return _document(lambda document: document["required"][0].update({key: value}))


def _longer(count: int, where: str) -> Make:
    def change(document: Any) -> None:
        document[where][0]["size"] += count

    return _document(change)


def _moved(document: Any) -> None:
    document["required"].append({**document["blobs"].pop(0), "release": document["required"][0]["release"]})
    document["required"].sort(key=lambda blob: blob["digest"])


DELTAS: Final[dict[str, Make]] = {
    "site-other-bytes": _there(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "site-zeros": _there(lambda data: bytes(len(data))),
    "site-longer": _there(lambda data: data + b"\0"),
    "site-shorter": _there(lambda data: data[:-1]),
    "site-empty": _there(lambda _data: b""),
    "required-longer": _longer(1, "required"),
    "required-shorter": _longer(-1, "required"),
    "required-size-0": _of_required("size", 0),
    "required-size-minus": _of_required("size", -1),
    "required-size-huge": _of_required("size", 2**62),
    "required-size-text": _of_required("size", "9"),
    "required-size-beyond": _of_required("size", 10**400),
    "required-unknown": _of_required("digest", f"sha256:{'a' * 64}"),
    "required-digest-up": _of_required("digest", "sha256:../../../../etc/passwd"),
    "required-release-long": _of_required("release", "x" * 100_000),
    "required-release-escape": _of_required("release", "\x1b[31m"),
    "required-none": _document(lambda document: document.update(required=[])),
    "required-null": _document(lambda document: document.update(required=None)),
    "required-gone": _document(lambda document: document.pop("required")),
    "required-twice": _document(lambda document: document["required"].extend(document["required"])),
    "required-many": _document(lambda document: document["required"].extend(document["required"] * 50_000)),
    "required-and-there": _document(lambda document: document["blobs"].extend(document["required"])),
    "required-in-the-tar": _document(_moved),
    "blob-longer": _longer(1, "blobs"),
    "blob-shorter": _longer(-1, "blobs"),
    "format-1": _document(lambda document: document.update(format=1)),
    "format-3": _document(lambda document: document.update(format=3)),
}
