"""A registry as one end of a copy: asked by the probe, and by skopeo where the probe is unsure."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, TypeVar

from regwrap.core.errors import ToolError
from regwrap.core.model import Digest
from regwrap.registry.credentials import UnsureError
from regwrap.registry.harbor import Harbor
from regwrap.tools.skopeo import Remote, Skopeo

if TYPE_CHECKING:
    from collections.abc import Callable

    from regwrap.core.location import Registry
    from regwrap.core.manifest import Descriptor
    from regwrap.registry.probe import Probe

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryEndpoint:
    """A registry: asked by the probe, and by skopeo where the probe is unsure. `made` are manifests that it does not
    have itself (indexes of its referrers), and that are as good as if it had them. `there` are the sizes of blobs that
    repositories were seen to have, `sizes` those of blobs that any of them has, `known` whether it had a repository
    when that was asked."""

    registry: Registry
    probe: Probe
    skopeo: Skopeo
    made: dict[Digest, bytes] = field(default_factory=dict, compare=False)
    there: dict[tuple[str, Digest], int] = field(default_factory=dict, compare=False)
    sizes: dict[Digest, int] = field(default_factory=dict, compare=False)
    known: dict[str, bool] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        return self.registry.host

    def resolve(self, repository: str, tag: str) -> Digest | None:
        def by_skopeo(_unsure: UnsureError) -> Digest | None:
            raw = self._manifest_by_skopeo(repository, tag)
            return None if raw is None else Digest.of(raw)

        return _asked(lambda: self.probe.digest(repository, tag), by_skopeo)

    def tagged(self, repository: str, tag: str) -> tuple[Digest, bytes] | None:
        """What the tag points to, and that manifest's bytes, not verified: one question where `resolve` and `manifest`
        are two."""

        def by_skopeo(_unsure: UnsureError) -> tuple[Digest, bytes] | None:
            raw = self._manifest_by_skopeo(repository, tag)
            return None if raw is None else (Digest.of(raw), raw)

        return _asked(lambda: self.probe.tagged(repository, tag), by_skopeo)

    def manifest(self, repository: str, digest: Digest) -> bytes | None:
        return self.made.get(digest) or self.tagged_manifest(repository, digest)

    def tagged_manifest(self, repository: str, reference: str | Digest) -> bytes | None:
        """The bytes that a tag or digest gives now, not verified."""
        return _asked(
            lambda: self.probe.manifest(repository, reference),
            lambda _unsure: self._manifest_by_skopeo(repository, reference),
        )

    def referrers(self, repository: str, digest: Digest) -> tuple[dict[str, object], ...] | None:
        """Descriptors of manifests that are about `digest`; None where the registry has no API for them.

        skopeo cannot ask that either, so where our own requests cannot it is told, and tags alone are looked at.
        """

        def note(unsure: UnsureError) -> None:
            self.probe.note(f"{self.name}: referrers are looked for by their tags only, not by its API: {unsure}")

        return _asked(lambda: self.probe.referrers(repository, digest), note)

    def tags(self, repository: str) -> tuple[str, ...]:
        """Sorted; none where the registry has no such repository."""
        return self.known_tags(repository) or ()

    def known_tags(self, repository: str) -> tuple[str, ...] | None:
        """Sorted; None where the registry has no such repository."""
        found = _asked(lambda: self.probe.tags(repository), lambda _unsure: self.skopeo.tags(self.registry, repository))
        return None if found is None else tuple(sorted(found))

    def repositories(self) -> tuple[str, ...]:
        return tuple(sorted(_asked(self.probe.catalog, self._no_catalog)))

    def config(self, repository: str, manifest: Digest, blob: Descriptor, /) -> bytes:
        def by_skopeo(_unsure: UnsureError) -> bytes | None:
            return self.skopeo.config(Remote(registry=self.registry, repository=repository, reference=manifest))

        raw = _asked(lambda: self.probe.small_blob(repository, blob.digest), by_skopeo)
        return raw if raw is not None and Digest.of(raw) == blob.digest else b""

    def mounted(self, repository: str, digest: Digest, source: str) -> bool:
        """Whether the blob is in the repository now, taken over from `source` within the registry."""
        with suppress(ToolError):
            return _asked(lambda: self.probe.mount(repository, digest, source), lambda _unsure: False)
        return False

    def accepts_partial_indexes(self, repository: str) -> bool | None:
        """Whether it takes an index without all that it names; None: only a push would show it.

        The configuration knows best. distribution 2 refuses them, and so does Harbor, which has it inside; with version
        3 it is a setting that no answer tells.
        """
        if self.registry.partial_indexes is not None:
            return self.registry.partial_indexes
        refuses = _asked(
            lambda: self.probe.is_distribution_2(repository) or Harbor(self.probe).is_there(), lambda _unsure: False
        )
        return False if refuses else None

    def is_new(self, repository: str) -> bool:
        """Whether the registry does not know the repository; asked once a run. It may have blobs all the same, of a
        push that was interrupted. What is no clear answer is no."""
        if repository not in self.known:
            try:
                self.known[repository] = self.probe.knows(repository)
            except (UnsureError, ToolError) as error:  # to list tags may be forbidden to who may push
                if isinstance(error, ToolError) and error.transient:
                    raise
                self.known[repository] = True
        return not self.known[repository]

    def missing(self, repository: str, blobs: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
        """Those of `blobs` that are absent or of another size there."""
        return tuple(blob for blob in blobs if not self._has(repository, blob))

    def _has(self, repository: str, blob: Descriptor) -> bool:
        """A repository's tags share most of their layers: what is there is asked for once a run."""
        key = (repository, blob.digest)
        if self.there.get(key) != blob.size:
            size = self.probe.blob_size(*key)
            if size is not None:
                self.there[key] = self.sizes[blob.digest] = size
        return self.there.get(key) == blob.size

    def _manifest_by_skopeo(self, repository: str, reference: str | Digest) -> bytes | None:
        return self.skopeo.manifest(Remote(registry=self.registry, repository=repository, reference=reference))

    def _no_catalog(self, unsure: UnsureError) -> NoReturn:
        otherwise = "write full repository names in images: of the configuration, without * or ?"
        raise ToolError(
            f"{self.name} does not list its repositories",
            detail=str(unsure),
            hint=f"{unsure.hint}; or {otherwise}" if unsure.hint else otherwise,
        ) from unsure


def _asked(ask: Callable[[], T], otherwise: Callable[[UnsureError], T]) -> T:
    """What the probe says; where it is unsure, what another way says. Where that fails with words that tell nothing
    known, the probe's are told beside them."""
    try:
        return ask()
    except UnsureError as unsure:
        try:
            return otherwise(unsure)
        except ToolError as error:
            if not error.hint and unsure.hint:
                error.hint, error.detail = unsure.hint, f"{error.detail} ({unsure})"
            raise
