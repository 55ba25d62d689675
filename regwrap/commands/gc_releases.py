"""What gc keeps of a site's releases, by digest, and what it takes of the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from regwrap.bundle.releases import HeldAlone, SiteRelease, SiteReleases, chosen_release, held_alone
from regwrap.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regwrap.core.model import Digest
    from regwrap.storage.gc import Garbage, Keep
    from regwrap.storage.store import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReleases:
    """`last`: so many of those that came last; `names`, or ids. With `drop_current` the release in use is none of them
    by itself."""

    last: int | None = None
    names: tuple[str, ...] = ()
    drop_current: bool = False

    @property
    def wanted(self) -> bool:
        return self.last is not None or bool(self.names)


NO_RELEASES: Final = KeptReleases()


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReleaseReport:
    """`lost`: the images of it that go, or would. `alone_blobs` with `alone_bytes` are in no other release here."""

    name: str
    id: str
    deployed: str
    kept: bool
    images: int
    lost: int
    alone_blobs: int
    alone_bytes: int


@dataclass(frozen=True, slots=True)
class ReleaseChoice:
    """What is kept, those in `kept` included; `note` says what was not asked for."""

    keep: Keep
    kept: tuple[SiteRelease, ...]
    note: str


def choose_releases(storage: Storage, found: SiteReleases, wanted: KeptReleases, keep: Keep) -> ReleaseChoice:
    """Keep what is wanted of the releases too. Where not all tags are kept anyway, the one in use is kept as well.

    Raises UsageError for a release that is not recorded.
    """
    if keep.all_tags:
        return ReleaseChoice(keep, (), "")
    if wanted.wanted and not found.releases:
        raise UsageError(
            f"{storage.root} has no record of a release",
            hint="give --keep with a list or a bundle, or record what is there: regwrap releases DIR --adopt BUNDLE",
        )
    chosen = [chosen_release(found, name, storage.root) for name in wanted.names]
    chosen += found.releases[-wanted.last :] if wanted.last else ()
    note = ""
    used = None if wanted.drop_current else release_in_use(storage, found)
    if used is not None and used not in chosen:
        chosen.append(used)
        note = f"release {used.label} is in use here and is kept too; --drop-current lets it go"
    kept = tuple(release for release in found.releases if release in chosen)
    return ReleaseChoice(_with(keep, kept), kept, note)


def release_in_use(storage: Storage, found: SiteReleases) -> SiteRelease | None:
    """The release most of whose tags are what it says; of equals the one that came last."""
    tags: dict[tuple[str, str], Digest | None] = {}

    def share(release: SiteRelease) -> float:
        count = 0
        for image in release.contents.images:
            name = (image.repository, image.tag)
            if name not in tags:
                tags[name] = storage.resolve(*name)
            count += tags[name] == image.digest
        return count / max(1, len(release.contents.images))

    shares = [(share(release), number) for number, release in enumerate(found.releases)]
    best, number = max(shares, default=(0.0, 0))
    return found.releases[number] if best >= 0.5 else None


def _with(keep: Keep, kept: tuple[SiteRelease, ...]) -> Keep:
    if not kept:
        return keep
    images = [image for release in kept for image in release.contents.images]
    return replace(
        keep,
        names=(keep.names or frozenset()) | {image.name for image in images},
        digests=keep.digests | {(image.repository, image.digest) for image in images},
        releases=True,
    )


def release_reports(found: SiteReleases, kept: Iterable[SiteRelease], garbage: Garbage) -> tuple[GcReleaseReport, ...]:
    """Of each release what it alone holds, and what of it goes."""
    alone = held_alone(found.releases)
    gone = {(repository.name, digest) for repository in garbage.repositories for digest in repository.revisions}
    ids = {release.contents.id for release in kept}
    return tuple(
        _report(release, alone[release.contents.id], gone, kept=release.contents.id in ids)
        for release in found.releases
    )


def _report(release: SiteRelease, alone: HeldAlone, gone: set[tuple[str, Digest]], *, kept: bool) -> GcReleaseReport:
    contents = release.contents
    return GcReleaseReport(
        name=contents.name,
        id=str(contents.id),
        deployed=release.deployed,
        kept=kept,
        images=len(contents.images),
        lost=sum((image.repository, image.digest) in gone for image in contents.images),
        alone_blobs=alone.blobs,
        alone_bytes=alone.bytes,
    )
