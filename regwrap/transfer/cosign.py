"""Signatures of images as cosign makes them with a key: what they say, and whether the key has signed it.

A signature lies in a manifest of its own, under the tag `sha256-HEX.sig` or as a referrer: each layer is a payload
(simple signing) that names a digest, its annotation is the signature of these bytes. Names in it are not compared,
since images get others on their way; there is no transparency log behind a gap.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.core.closure import closure_of
from regwrap.core.errors import IntegrityError
from regwrap.core.fields import a_text, an_object, field, json_object, list_of
from regwrap.core.manifest import Descriptor, a_digest, a_size
from regwrap.core.model import Digest, subject_of_tag
from regwrap.registry.endpoint import RegistryEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from regwrap.bundle.by_repository import ImageSource
    from regwrap.tools.openssl import Openssl

_PAYLOAD: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_TYPE: Final = "cosign container image signature"
_MAX_SIGNATURES: Final = 100


@dataclass(frozen=True, slots=True)
class _Signed:
    payload: bytes
    signature: bytes


def check_signed(openssl: Openssl, keys: Sequence[Path], source: ImageSource, repository: str, digest: Digest) -> None:
    """Raises IntegrityError where none of the keys has signed the image, with what there is instead."""
    others = 0
    for number, signed in enumerate(_signatures(source, repository, digest)):
        if number == _MAX_SIGNATURES:
            break
        if signed_digest(signed.payload) == digest and openssl.has_signed(keys, signed.payload, signed.signature):
            return
        others += 1
    names = ", ".join(key.name for key in keys)
    what = f"none of its {others} signatures is by {names}" if others else "it has no signature"
    raise IntegrityError(
        f"{digest.short} is not signed: {what}",
        hint=f"cosign sign --key KEY {repository}@{digest}; it has to travel with the image (--referrers)",
    )


def is_about_another(source: ImageSource, repository: str, tag: str, digest: Digest) -> bool:
    """Whether the tag says that what it points to is about a manifest, as a signature is, which the repository has:
    then it needs no signature, unless it is an image that can run. The bytes prove both. Raises RegwrapError."""
    subject = subject_of_tag(tag)
    raw = source.manifest(repository, subject) if subject is not None else None
    if raw is None or Digest.of(raw) != subject:
        return False
    closure = closure_of(digest, lambda wanted: source.manifest(repository, wanted))
    return closure is not None and not any(leaf.can_run for leaf in closure.leaves)


def signed_digest(payload: bytes) -> Digest | None:
    """The digest that a payload of simple signing is about; None where it is none of cosign's."""
    try:
        critical = field(json_object(payload), "critical", an_object)
        if field(critical, "type", a_text) != _TYPE:
            return None
        return field(field(critical, "image", an_object), "docker-manifest-digest", a_digest)
    except ValueError:
        return None


def _signatures(source: ImageSource, repository: str, digest: Digest) -> Iterator[_Signed]:
    for top in dict.fromkeys(_manifests(source, repository, digest)):
        raw = source.manifest(repository, top)
        if raw is None or Digest.of(raw) != top:
            continue
        for layer, signature in _layers(raw):
            payload = source.config(repository, top, layer)
            if payload and Digest.of(payload) == layer.digest:
                yield _Signed(payload, signature)


def _manifests(source: ImageSource, repository: str, digest: Digest) -> Iterator[Digest]:
    """Those that may hold signatures of the image: cosign's tag, and its referrers."""
    tagged = source.resolve(repository, f"sha256-{digest.hex}.sig")
    if tagged is not None:
        yield tagged
    listed = source.referrers(repository, digest) if isinstance(source, RegistryEndpoint) else None
    index = source.resolve(repository, f"sha256-{digest.hex}") if listed is None else None
    raw = source.manifest(repository, index) if index is not None else None
    for descriptor in listed or (_children(raw) if raw is not None else ()):
        found = _digest_of(descriptor)
        if found is not None:
            yield found


def _children(raw: bytes) -> tuple[object, ...]:
    try:
        return field(json_object(raw), "manifests", list_of(lambda value: value))
    except ValueError:
        return ()


def _digest_of(descriptor: object) -> Digest | None:
    try:
        return field(an_object(descriptor), "digest", a_digest)
    except ValueError:
        return None


def _layers(raw: bytes) -> Iterator[tuple[Descriptor, bytes]]:
    """Each payload of a manifest, and its signature; nothing where it holds none."""
    try:
        layers = field(json_object(raw), "layers", list_of(an_object))
    except ValueError:
        return
    for layer in layers:
        try:
            if field(layer, "mediaType", a_text) != _PAYLOAD:
                continue
            text = field(field(layer, "annotations", an_object), _SIGNATURE, a_text)
            digest, size = field(layer, "digest", a_digest), field(layer, "size", a_size)
            yield Descriptor(media_type=_PAYLOAD, digest=digest, size=size), base64.b64decode(text, validate=True)
        except ValueError:
            continue
