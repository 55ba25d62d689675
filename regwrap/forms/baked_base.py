"""What a base image is, and where the registry's program is in it."""

from __future__ import annotations

import tarfile
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.core import ocilayout
from regwrap.core.errors import UsageError
from regwrap.core.manifest import Descriptor, Index, Manifest, parse_manifest
from regwrap.forms.baked_image import beyond_oci, check_base, empty_config, parse_config
from regwrap.storage.store import regular_size

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.core.model import Platform

# Debian's package, and the images registry:2 and registry:3
_PROGRAMS: Final = ("usr/bin/docker-registry", "bin/registry", "usr/bin/registry", "usr/local/bin/registry")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """`layout` is None for the empty base. `beyond` is what its config says to docker, without a key in OCI's."""

    layout: Path | None
    config: dict[str, object]
    layers: tuple[Descriptor, ...]
    beyond: dict[str, object] = field(default_factory=dict)


def empty_base(platform: Platform) -> BaseImage:
    return BaseImage(layout=None, config=empty_config(platform), layers=())


def read_base(layout: Path, name: str | None, platform: Platform, original: bytes | None = None) -> BaseImage:
    """An image of an OCI layout; of an index the one for `platform`. `original` is its config before skopeo converted
    it. Raises UsageError, IntegrityError."""
    entry = ocilayout.named_entry(layout, name)
    manifest = parse_manifest(ocilayout.read_blob(layout, entry.digest))
    if isinstance(manifest, Index):
        fitting = [c for c in manifest.manifests if c.platform is not None and platform.matches(c.platform)]
        if not fitting:
            raise UsageError(
                f"the base image has no {platform}", hint="select another one with --platform OS/ARCHITECTURE"
            )
        manifest = parse_manifest(ocilayout.read_blob(layout, fitting[0].digest))
    if not isinstance(manifest, Manifest):
        raise UsageError("the base image is a nested index")
    check_base(manifest)
    config = parse_config(ocilayout.read_blob(layout, manifest.config.digest))
    for layer in manifest.layers:
        path = layout / ocilayout.blob_path(layer.digest)
        if regular_size(path) != layer.size:
            raise UsageError(f"the base image is incomplete: layer {layer.digest} is not in {layout}")
    beyond = beyond_oci(config if original is None else parse_config(original))
    return BaseImage(layout=layout, config=config, layers=manifest.layers, beyond=beyond)


def registry_program(base: BaseImage) -> str:
    """The absolute path of the registry's program. Raises UsageError where none is found."""
    layout, names = base.layout, set[str]()
    if layout is not None:
        names = {name for layer in base.layers for name in _names(layout / ocilayout.blob_path(layer.digest))}
    found = next((name for name in _PROGRAMS if name in names), None)
    if found is None:
        raise UsageError(
            "the base image has no registry",
            detail=f"looked for {', '.join(_PROGRAMS)}",
            hint="give the registry's path with --registry /path/in/the/image, or use a base such as registry:2",
        )
    return f"/{found}"


def _names(layer: Path) -> set[str]:
    names: set[str] = set()
    # only names are looked at: a layer without an end (umoci insert), or by zstd, has no more to say
    with suppress(tarfile.TarError, EOFError, OSError), tarfile.open(layer, "r:*") as archive:
        for member in archive:
            names.add(member.name.removeprefix("./").removeprefix("/"))
    return names
