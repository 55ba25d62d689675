"""A registry as one end of a copy: asked by the probe, and by skopeo where the probe is unsure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regwrap.core.errors import ToolError
from regwrap.core.model import Descriptor, Digest
from regwrap.registry.credentials import UnsureError
from regwrap.tools.skopeo import Remote, Skopeo

if TYPE_CHECKING:
    from regwrap.core.place import Registry
    from regwrap.registry.probe import Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryEnd:
    """A registry: asked by the probe, and by skopeo where the probe is unsure. `made` are manifests that it does not
    have itself (indexes of its referrers), and that are as good as if it had them."""

    registry: Registry
    probe: Probe
    skopeo: Skopeo
    made: dict[Digest, bytes] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        return self.registry.host

    def resolve(self, repository: str, tag: str) -> Digest | None:
        try:
            return self.probe.digest(repository, tag)
        except UnsureError:
            raw = self.skopeo.manifest(Remote(registry=self.registry, repository=repository, reference=tag))
            return None if raw is None else Digest.of(raw)

    def manifest(self, repository: str, digest: Digest) -> bytes | None:
        if digest in self.made:
            return self.made[digest]
        try:
            return self.probe.manifest(repository, digest)
        except UnsureError:
            return self.skopeo.manifest(Remote(registry=self.registry, repository=repository, reference=digest))

    def referrers(self, repository: str, digest: Digest) -> tuple[dict[str, object], ...] | None:
        """Descriptors of manifests that are about `digest`; None where the registry does not tell."""
        try:
            return self.probe.referrers(repository, digest)
        except UnsureError:
            return None

    def tags(self, repository: str) -> tuple[str, ...]:
        """Sorted; none where the registry has no such repository."""
        try:
            return tuple(sorted(self.probe.tags(repository) or ()))
        except UnsureError:
            return tuple(sorted(self.skopeo.tags(self.registry, repository) or ()))

    def repositories(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(self.probe.catalog()))
        except UnsureError as error:
            raise ToolError(
                f"{self.name} does not say which repositories it has",
                detail=str(error),
                hint="write each repository's name out in images: of the configuration, without * or ?",
            ) from error

    def config(self, repository: str, blob: Descriptor) -> bytes:
        raw = self.probe.small_blob(repository, blob.digest)
        return raw if raw is not None and Digest.of(raw) == blob.digest else b""

    def tagged_manifest(self, repository: str, tag: str) -> bytes | None:
        """The bytes that the tag gives now, not verified."""
        try:
            return self.probe.manifest(repository, tag)
        except UnsureError:
            return self.skopeo.manifest(Remote(registry=self.registry, repository=repository, reference=tag))

    def mounted(self, repository: str, digest: Digest, source: str) -> bool:
        """Whether the blob is in the repository now, taken over from `source` within the registry."""
        try:
            return self.probe.mount(repository, digest, source)
        except (ToolError, UnsureError):
            return False

    def lacking(self, repository: str, blobs: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
        """Those of `blobs` that are absent or of another size there."""
        return tuple(b for b in blobs if self.probe.blob_size(repository, b.digest) != b.size)
