"""Manifest and config of a baked image: those of the base with one layer more, or new ones. Pure.

Nothing in them depends on time, machine or environment.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.fields import a_list, an_object, field, json_object, or_none
from regwrap.core.manifest import OCI_MANIFEST, Descriptor, Manifest
from regwrap.core.model import Digest, Platform

if TYPE_CHECKING:
    from regwrap.forms.baked_layer import Layer

CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
CREATED: Final = "1970-01-01T00:00:00Z"
_BEYOND: Final = ("Healthcheck", "OnBuild", "Shell", "StopTimeout")
_SAID: Final = {"created": CREATED, "created_by": "regwrap bake"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """An image's config and manifest as they are written."""

    config: bytes
    manifest: bytes


def empty_config(platform: Platform) -> dict[str, object]:
    return {
        "architecture": platform.architecture,
        "os": platform.os,
        **({"variant": platform.variant} if platform.variant else {}),
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [],
    }


def parse_config(raw: bytes) -> dict[str, object]:
    """A base's config. Raises IntegrityError."""
    try:
        document = json_object(raw)
        field(field(document, "rootfs", an_object), "diff_ids", a_list)
        run = field(document, "config", or_none(an_object))
        field(run or {}, "Volumes", or_none(an_object))
    except ValueError as error:
        raise IntegrityError(f"the base image's config cannot be parsed: {error}") from error
    return document


def beyond_oci(config: dict[str, object]) -> dict[str, object]:
    """What docker reads of a config and OCI's specification has no key for; skopeo and umoci drop it."""
    run = config.get("config")
    return {key: run[key] for key in _BEYOND if run.get(key)} if isinstance(run, dict) else {}


def image_beyond(raw_config: bytes, manifest: Manifest, beyond: dict[str, object]) -> Documents:
    """The image with these keys in its config as well; its layers are the same."""
    config = parse_config(raw_config)
    run = config.get("config")
    raw = _dumped({**config, "config": {**(run if isinstance(run, dict) else {}), **beyond}})
    document = {**json_object(manifest.raw), "config": _descriptor(CONFIG_TYPE, Digest.of(raw), len(raw))}
    return Documents(config=raw, manifest=_dumped(document))


def check_base(manifest: Manifest) -> None:
    """Raises UsageError for an image that umoci cannot work with."""
    if manifest.media_type != OCI_MANIFEST or manifest.config.media_type != CONFIG_TYPE:
        raise UsageError(
            f"the base image is not an OCI image ({manifest.media_type}, config {manifest.config.media_type})",
            hint="skopeo copy … oci:DIR:TAG converts one; a base that is named by its registry is converted so",
        )


def volumes_over(config: dict[str, object], path: str) -> bool:
    """Whether a volume of the base covers `path`: an engine would copy all of it at each start of a container."""
    run = config.get("config")
    volumes = run.get("Volumes") if isinstance(run, dict) else None
    return any(path == volume or path.startswith(f"{volume}/".replace("//", "/")) for volume in volumes or ())


def image_with(layer: Layer, config: dict[str, object], below: tuple[Descriptor, ...]) -> Documents:
    """`config` of the layers `below`, with one more."""
    rootfs, history = config["rootfs"], config.get("history") or []
    if not isinstance(rootfs, dict) or not isinstance(history, list):
        raise IntegrityError("the base image's config cannot be parsed")
    raw = _dumped(
        {
            **config,
            "created": CREATED,
            "rootfs": {**rootfs, "diff_ids": [*rootfs["diff_ids"], str(layer.diff_id)]},
            "history": [*history, _SAID],
        }
    )
    layers = [*((b.media_type, b.digest, b.size) for b in below), (layer.media_type, layer.digest, layer.size)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(CONFIG_TYPE, Digest.of(raw), len(raw)),
        "layers": [_descriptor(*item) for item in layers],
    }
    return Documents(config=raw, manifest=_dumped(manifest))


def _descriptor(media_type: str, digest: Digest, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(digest), "size": size}


def _dumped(document: dict[str, object]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
