"""The bytes of made-up images: layers, configs, manifests, indexes. Pure functions.

The same label gives the same bytes on every machine and every Python: noise comes from SHAKE and
the gzip stream is written by hand, so that no zlib version has a say in a digest.
"""

import hashlib
import json
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["docker", "oci"]

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_TYPES: Final[dict[Kind, tuple[str, str, str]]] = {
    "docker": (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
    "oci": (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.oci.image.layer.v1.tar+gzip",
    ),
}
_CREATED: Final = "2024-01-01T00:00:00Z"
_TAR_BLOCK: Final = 512
_STORED_MAX: Final = 65535
_GZIP_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True, slots=True)
class Blob:
    """A digest (hex) with its size, as manifests name it."""

    hex: str
    size: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer blob and the digest of the tar inside it."""

    blob: Blob
    diff_id: str


def blob_of(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


def draw(*labels: object) -> float:
    """A number in [0, 1) that belongs to the labels."""
    text = "/".join(map(str, labels)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:6], "big") / 2**48


def layer_data(seed: int, label: str, size: int) -> tuple[Layer, bytes]:
    """A gzip of a tar of one file of noise."""
    noise = hashlib.shake_128(f"{seed}/{label}".encode()).digest(size)
    tar = _tar(f"opt/{label}.bin", noise)
    data = b"".join(_gzip_parts(tar))
    return Layer(blob_of(data), hashlib.sha256(tar).hexdigest()), data


def config_data(name: str, architecture: str, layers: Sequence[Layer]) -> bytes:
    return _json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": _CREATED,
            "config": {"Cmd": [f"/opt/{name}"], "Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{x.diff_id}" for x in layers]},
            "history": [{"created": _CREATED, "created_by": x.diff_id[:12]} for x in layers],
        }
    )


def manifest_data(kind: Kind, config: Blob, layers: Sequence[Layer]) -> bytes:
    manifest_type, config_type, layer_type = _TYPES[kind]
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": _descriptor(config_type, config),
            "layers": [_descriptor(layer_type, layer.blob) for layer in layers],
        }
    )


def index_data(manifests: Mapping[str, Blob]) -> bytes:
    """An OCI index of OCI manifests, by architecture."""
    entries = [
        {
            **_descriptor(_TYPES["oci"][0], manifest),
            "platform": {"architecture": architecture, "os": "linux"},
        }
        for architecture, manifest in manifests.items()
    ]
    return _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def _descriptor(media_type: str, blob: Blob) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{blob.hex}", "size": blob.size}


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _tar(name: str, data: bytes) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    padding = bytes(-len(data) % _TAR_BLOCK + 2 * _TAR_BLOCK)
    return b"".join((entry.tobuf(tarfile.USTAR_FORMAT), data, padding))


def _gzip_parts(data: bytes) -> Iterator[bytes | memoryview]:
    """Stored blocks: as valid as compressed ones, and nearly free to make and to read."""
    view = memoryview(data)
    yield _GZIP_HEAD
    for start in range(0, len(data), _STORED_MAX):
        chunk = view[start : start + _STORED_MAX]
        last = start + _STORED_MAX >= len(data)
        yield struct.pack("<BHH", last, len(chunk), len(chunk) ^ 0xFFFF)
        yield chunk
    yield struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
