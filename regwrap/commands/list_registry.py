"""What a registry or a storage has, as images: the other way round, from an archive that is there to a list."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import ImagesFailedError, UsageError
from regwrap.core.model import ImageRef, is_repository, is_tag
from regwrap.transfer.endpoints import Endpoints
from regwrap.transfer.listing import tags_of

if TYPE_CHECKING:
    from regwrap.core.location import Location
    from regwrap.transfer.job import Job

_MAX_NOTES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryListing:
    """Sorted images. Without a registry where none can be named in a list: they are then read with --source. `unread`
    are repositories that could not be listed, each with why."""

    images: tuple[ImageRef, ...]
    notes: tuple[str, ...]
    unread: tuple[str, ...] = ()


def list_location(job: Job, location: Location, prefix: str) -> RegistryListing:
    """All tags of all repositories, or of those below `prefix`. Raises ImagesFailedError where there are none."""
    if location.storage is not None and not location.storage.is_dir():
        raise UsageError(
            f"{location.storage} is not a directory", hint="give a storage's root directory, or HOST[/PREFIX]"
        )
    with ExitStack() as stack:
        end = Endpoints(job=job, stack=stack).of(location)
        names = [name for name in job.retry.call(end.repositories) if _is_below(name, prefix)]
        found = tags_of(job, end, names)
    pairs = [(name, tag) for name, tags in found.tags for tag in tags]
    legal = {(name, tag) for name, tag in pairs if is_repository(name) and is_tag(tag)}
    if not legal:
        where = f"{location.name}/{prefix}" if prefix else location.name
        raise ImagesFailedError(f"{where} has no tagged images", hint="check the registry, directory and prefix")
    host = _nameable_host(location)
    images = (ImageRef(registry=host, repository=name, tag=tag, digest=None) for name, tag in legal)
    odd = [
        f"{f'{name}:{tag}'[:200]!r} is no name that a list can have" for name, tag in pairs if (name, tag) not in legal
    ]
    return RegistryListing(images=tuple(sorted(images)), notes=tuple(odd[:_MAX_NOTES]), unread=found.unread)


def _is_below(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}/")


def _nameable_host(location: Location) -> str | None:
    """The host, where a line that begins with it is not taken for a path."""
    host = location.registry.host if location.registry else ""
    return host if "." in host or ":" in host or host == "localhost" else None
