"""Tags of many repositories: one that cannot be read does not hide the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.core.errors import HostDownError, RegwrapError
from regwrap.registry.endpoint import RegistryEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regwrap.bundle.by_repository import StorageSource
    from regwrap.transfer.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTags:
    """`tags` of the repositories that could be read, in their order; `unread` are the others, each with why."""

    tags: tuple[tuple[str, tuple[str, ...]], ...]
    unread: tuple[str, ...]


def tags_of(job: Job, end: RegistryEndpoint | StorageSource, names: Iterable[str]) -> FoundTags:
    """Several repositories are asked at the same time. Raises RegwrapError where none of them could be read."""

    def tags(name: str) -> tuple[str, ...] | RegwrapError:
        try:
            return job.retry.call(lambda: _tags(end, name))
        except HostDownError:
            raise
        except RegwrapError as error:
            if job.stopping.is_set():
                raise
            return error

    known = tuple(names)
    pairs = tuple(zip(known, job.ask(tags, known), strict=True))
    errors = {name: error for name, error in pairs if isinstance(error, RegwrapError)}
    if errors and len(errors) == len(known):
        raise next(iter(errors.values()))
    return FoundTags(
        tags=tuple((name, tags) for name, tags in pairs if isinstance(tags, tuple)),
        unread=tuple(f"{name} is left out: {error}" for name, error in errors.items()),
    )


def _tags(end: RegistryEndpoint | StorageSource, name: str) -> tuple[str, ...]:
    if not isinstance(end, RegistryEndpoint):
        return end.tags(name)
    found = end.known_tags(name)
    if found is None:
        raise RegwrapError(f"{end.name} names it, and says that it does not exist")
    return found
