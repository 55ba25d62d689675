"""Bake an image: base, one layer with the storage, how to run it; built aside, published whole.

The same image set and base give the same digest: every file is written with fixed times, by one writer.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.bundle.base import refuse_bases
from regwrap.bundle.opened import opened_history, opened_image_set
from regwrap.core import ocilayout
from regwrap.core.errors import IntegrityError, ToolError, UsageError
from regwrap.core.fields import a_text, an_object, field, json_object, list_of, or_none
from regwrap.core.manifest import OCI_MANIFEST, Descriptor, Manifest, parse_manifest
from regwrap.core.model import Digest, ImageRef, LayoutRef, ParseError, Platform
from regwrap.core.writing import named_on_error
from regwrap.forms.baked_base import BaseImage, empty_base, read_base, registry_program
from regwrap.forms.baked_image import CREATED, image_beyond, image_with, volumes_over
from regwrap.forms.baked_layer import Layer, compressed, write_layer
from regwrap.storage.commit import sync_file_system
from regwrap.storage.hashing import hash_problem, hashed, pieces_of
from regwrap.storage.space import need_space
from regwrap.tools.scratch import overlay_directory
from regwrap.tools.skopeo import Remote
from regwrap.tools.umoci import RunConfig, Umoci
from regwrap.transfer.endpoints import Endpoints

if TYPE_CHECKING:
    from regwrap.bundle.image_set import ImageSet
    from regwrap.core.release_id import ReleaseId
    from regwrap.transfer.job import Job

CONFIG_PATH: Final = "/etc/regwrap/registry.yml"
PORT: Final = 5000
_ROOT: Final = re.compile(r"(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class BakeOptions:
    """`root`: the storage's place in the image. `program`: the registry's path in the base; None looks for it. `bases`
    have what a delta requires."""

    base: str | None
    platform: Platform
    root: str
    program: str | None
    compress: bool
    history: bool
    dry_run: bool
    bases: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BakeReport:
    """`digest` of the image's manifest, None for a dry run; `layer_bytes` as the layer lies in the image. `release` is
    None for a storage."""

    image: str
    digest: Digest | None
    images: int
    blobs: int
    blob_bytes: int
    layer_bytes: int
    entrypoint: tuple[str, ...]
    there: bool
    release: ReleaseId | None = None


def bake_image(job: Job, source: Path, dest: LayoutRef, options: BakeOptions) -> BakeReport:
    """Raises UsageError (the tag is there with another image, no registry in the base), IntegrityError, ToolError."""
    if dest.name is None:
        raise UsageError(f"{dest} has no tag", hint="--to oci:DIR:TAG")
    if not _ROOT.fullmatch(options.root):
        raise UsageError(
            f"{options.root!r} is not a path for the storage in the image", hint="for example /srv/registry"
        )
    directory = Path(dest.directory).absolute()
    ocilayout.is_published(directory, dest.name, None)
    if options.history:
        refuse_bases(f"{source}", options.bases)
    opened = opened_history if options.history else partial(opened_image_set, bases=options.bases)
    with ExitStack() as stack:
        image_set = stack.enter_context(opened(source, lock_timeout=job.timeouts.lock, listener=job.listener))
        base = _base(job, options, stack)
        run = _run_config(base, options)
        report = _report(dest, image_set, run)
        if options.dry_run:
            return report
        _check_space(directory, image_set, options)
        aside = stack.enter_context(overlay_directory(directory.parent, job.scratch))
        built = _Building(job=job, image_set=image_set, base=base, layout=aside / "layout", options=options)
        layer = built.layer(aside)
        digest = built.image(dest.name, layer, run)
        there = ocilayout.is_published(directory, dest.name, digest)
        if not there:
            ocilayout.publish(aside / "layout", directory, sync_file_system)
        return replace(report, digest=digest, layer_bytes=layer.size, there=there)


def _report(dest: LayoutRef, image_set: ImageSet, run: RunConfig) -> BakeReport:
    contents = image_set.contents
    return BakeReport(
        image=f"{dest}",
        digest=None,
        images=len(contents.images),
        blobs=len(contents.blobs),
        blob_bytes=contents.blob_bytes,
        layer_bytes=0,
        entrypoint=run.entrypoint,
        there=False,
        release=image_set.release,
    )


def _base(job: Job, options: BakeOptions, stack: ExitStack) -> BaseImage:
    if options.base is None:
        return empty_base(options.platform)
    try:
        if options.base.startswith("oci:"):
            ref = LayoutRef.parse(options.base)
            return read_base(Path(ref.directory), ref.name, options.platform)
        image = ImageRef.parse(options.base)
    except ParseError as error:
        raise UsageError(f"--base: {error}", hint="oci:DIR:TAG, or HOST/REPOSITORY:TAG") from error
    registry = job.location_of(image.registry).registry if image.registry else None
    if registry is None:
        raise UsageError(f"--base: {options.base} names no registry", hint="HOST/REPOSITORY:TAG, or oci:DIR:TAG")
    layout = job.scratch / "base"
    remote = Remote(registry=registry, repository=image.repository, reference=image.digest or image.tag or "latest")
    skopeo = Endpoints(job=job, stack=stack).skopeo()
    skopeo.copy_one_platform(remote, layout, options.platform)
    return read_base(layout, "image", options.platform, skopeo.config(remote, options.platform))


def _run_config(base: BaseImage, options: BakeOptions) -> RunConfig:
    program = options.program or (None if base.layout is None else registry_program(base))
    return RunConfig(
        entrypoint=(program, "serve", CONFIG_PATH) if program else (),
        environment=(("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", options.root),),
        port=f"{PORT}/tcp",
        clear_volumes=volumes_over(base.config, options.root),
    )


def _check_space(directory: Path, image_set: ImageSet, options: BakeOptions) -> None:
    place = next(parent for parent in directory.parents if parent.is_dir())
    need_space(place, image_set.contents.blob_bytes * (2 if options.compress else 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Building:
    job: Job
    image_set: ImageSet
    base: BaseImage
    layout: Path
    options: BakeOptions

    def layer(self, aside: Path) -> Layer:
        layer = write_layer(
            self.image_set,
            aside / "layer.tar",
            root=self.options.root,
            extra={CONFIG_PATH: registry_config(self.options.root)},
            listener=self.job.listener,
        )
        return compressed(layer, aside / "layer.tar.gz", self.job.listener) if self.options.compress else layer

    def image(self, name: str, layer: Layer, run: RunConfig) -> Digest:
        """The layout with this one image; its digest."""
        umoci, documents = (
            Umoci(self.job.runner, self.job.timeouts.disk_stall),
            image_with(layer, self.base.config, self.base.layers),
        )
        umoci.init(self.layout)
        layer.path.rename(self.layout / ocilayout.blob_path(layer.digest))
        for below in {blob.digest: blob for blob in self.base.layers}.values():
            self._copy_layer(below)
        ocilayout.write_image(self.layout, name, (documents.config, documents.manifest), OCI_MANIFEST)
        umoci.configure(self.layout, name, run, created=CREATED)
        if self.base.beyond:
            self._keep_beyond(name)
        digest = ocilayout.named_entry(self.layout, name).digest
        self._check_configured(digest, run)
        self._remove_others(digest)
        return digest

    def _keep_beyond(self, name: str) -> None:
        keys = ", ".join(self.base.beyond)
        self.job.listener.log(f"note: the base's {keys} are kept for docker; OCI's specification has no such keys")
        manifest = parse_manifest(ocilayout.read_blob(self.layout, ocilayout.named_entry(self.layout, name).digest))
        if isinstance(manifest, Manifest):
            documents = image_beyond(
                ocilayout.read_blob(self.layout, manifest.config.digest), manifest, self.base.beyond
            )
            ocilayout.write_image(self.layout, name, (documents.config, documents.manifest), OCI_MANIFEST)

    def _check_configured(self, digest: Digest, run: RunConfig) -> None:
        """Exit code 0 proves nothing."""
        manifest = parse_manifest(ocilayout.read_blob(self.layout, digest))
        raw = ocilayout.read_blob(self.layout, manifest.config.digest) if isinstance(manifest, Manifest) else b"{}"
        if not _is_configured(raw, run):
            raise ToolError("umoci exited with 0 but did not configure the image")

    def _remove_others(self, digest: Digest) -> None:
        # what umoci gc is for, which reads and hashes every layer again: half of a bake's time
        manifest = parse_manifest(ocilayout.read_blob(self.layout, digest))
        needed = {digest, *(blob.digest for blob in manifest.blobs)} if isinstance(manifest, Manifest) else set()
        for path in (self.layout / "blobs/sha256").iterdir():
            if needed and Digest(path.name) not in needed:
                path.unlink()

    def _copy_layer(self, layer: Descriptor) -> None:
        if self.base.layout is None:
            return
        path = ocilayout.blob_path(layer.digest)
        with (
            named_on_error((self.base.layout / path).open("rb")) as source,
            named_on_error((self.layout / path).open("wb")) as out,
        ):
            copied = hashed(pieces_of(source), out.write)
        if copied != layer.digest:
            raise IntegrityError(f"the base image is damaged: {hash_problem(layer.digest)}")


def _is_configured(raw: bytes, run: RunConfig) -> bool:
    try:
        config = field(json_object(raw), "config", or_none(an_object)) or {}
        entrypoint = field(config, "Entrypoint", or_none(list_of(a_text))) or ()
        environment = field(config, "Env", or_none(list_of(a_text))) or ()
        ports = field(config, "ExposedPorts", or_none(an_object)) or {}
    except ValueError:
        return False
    wanted = {f"{name}={value}" for name, value in run.environment}
    return run.entrypoint in {(), entrypoint} and wanted <= {*environment} and run.port in ports


def registry_config(root: str) -> bytes:
    """What the registry in the image is told, for docker-registry 2.8 and later ones."""
    return (
        "version: 0.1\n"
        "log: {level: info}\n"
        "storage:\n"
        f"  filesystem: {{rootdirectory: {root}}}\n"
        "  delete: {enabled: true}\n"
        "  maintenance: {uploadpurging: {enabled: false}}\n"
        f'http: {{addr: ":{PORT}"}}\n'
    ).encode("ascii")
