"""What the workers of a cluster are told, and what they answer: small plain values, no credentials, nothing of a run.

A registry is a name; each worker asks its own configuration what that means, and refuses where it is another server.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regwrap import __version__
from regwrap.core.errors import HostDownError, IntegrityError, RegwrapError, ToolError
from regwrap.registry.credentials import UnsureError

if TYPE_CHECKING:
    from regwrap.core.location import Location
    from regwrap.core.model import Destination


@dataclass(frozen=True, slots=True)
class RegistryName:
    """`asked` is what the user calls it, `host` the server that the client takes for it."""

    asked: str
    host: str


def registry_name(location: Location) -> RegistryName:
    """Raises ValueError for what is no registry."""
    if location.registry is None:
        raise ValueError(f"{location.name} is no registry")
    host, name = location.registry.host, location.name
    return RegistryName(
        f"http://{host}" if location.registry.plain_http and name in {host, f"{host}:80"} else name, host
    )


@dataclass(frozen=True, slots=True)
class BlobOrder:
    """A blob to fetch from `repository`. `renewals`: the tokens that were got for it since its last byte."""

    digest: str
    size: int
    repository: str
    renewals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOrder:
    """Fetch these blobs of one registry, `parallel` at a time, into the stage of the storage at `root`, which this
    worker has by the same path."""

    run: str
    root: str
    source: RegistryName
    blobs: tuple[BlobOrder, ...]
    parallel: int
    version: str = __version__


@dataclass(frozen=True, slots=True)
class SendOrder:
    """A blob to put into the repositories of the images `to` at the destination: taken from its repository `mount`, or
    sent to one of them, from which the others take it. `new` are repositories of which nobody has asked what they
    have."""

    digest: str
    size: int
    repository: str
    to: tuple[Destination, ...]
    mount: str = ""
    new: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedFiles:
    """A bundle or a storage that the workers have by the same path as the client. `release` is a bundle's digest, so
    that it is the same one; its volumes may lie in `volumes_from` too."""

    path: str
    release: str = ""
    volumes_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOrder:
    """Put these blobs into a registry: from another one, or from a bundle or a storage that this worker has too."""

    run: str
    source: RegistryName | SharedFiles
    dest: RegistryName
    blobs: tuple[SendOrder, ...]
    version: str = __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class HashOrder:
    """Hash these blobs of the storage at `root`, of which each has so many bytes."""

    run: str
    root: str
    blobs: tuple[tuple[str, int], ...]
    version: str = __version__


Order = FetchOrder | PushOrder | HashOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error, in words. `kind`: which one it is here."""

    kind: str
    message: str
    detail: str = ""
    hint: str = ""
    transient: bool = False
    host: str = ""
    outage: bool = False

    @classmethod
    def of(cls, error: RegwrapError) -> Refusal:
        kind = next(name for name, known in _KINDS.items() if isinstance(error, known))
        words = cls(kind=kind, message=error.message, detail=error.detail, hint=error.hint)
        if isinstance(error, ToolError):
            return replace(words, transient=error.transient, host=error.host, outage=error.outage)
        return words

    def error(self) -> RegwrapError:
        """As it was raised there."""
        kind = _KINDS[self.kind]
        if issubclass(kind, ToolError):
            return kind(
                self.message,
                detail=self.detail,
                hint=self.hint,
                transient=self.transient,
                host=self.host,
                outage=self.outage,
            )
        return kind(self.message, detail=self.detail, hint=self.hint)


_KINDS: dict[str, type[RegwrapError]] = {
    "down": HostDownError,
    "tool": ToolError,
    "integrity": IntegrityError,
    "unsure": UnsureError,
    "other": RegwrapError,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobAnswer:
    """What came of one blob: it is proved (or was found wrong, of a hash) where there is no `refusal`; `again`: it did
    not fail and has to be asked for once more. `came` bytes of it travelled. `refused` are repositories of a registry
    that do not get it; all others have it."""

    digest: str
    came: int = 0
    renewals: int = 0
    again: bool = False
    refusal: Refusal | None = None
    refused: tuple[tuple[str, Refusal], ...] = ()

    @property
    def is_failure(self) -> bool:
        return self.refusal is not None or bool(self.refused)


@dataclass(frozen=True, slots=True)
class PushedBack:
    """A host that said "too many requests", or that it is busy; `retry_after` is the header's text, or empty."""

    host: str
    retry_after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a worker says of an order. `worker` is its name, `machine` where it runs; `seconds` it worked."""

    worker: str
    machine: str
    seconds: float
    blobs: tuple[BlobAnswer, ...]
    pushed_back: tuple[PushedBack, ...] = ()
    refusal: Refusal | None = None
