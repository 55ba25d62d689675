"""How to reach a registry: where it is, which credentials, whether its certificate counts. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.core.model import LayoutRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A registry server. `host` is HOST[:PORT]; `authfile` has docker's format; `cert_dir` holds `*.crt` of its CA.

    `tls_verify=False` accepts any certificate and plain HTTP. `plain_http` asks over HTTP first. `max_connections` and
    `requests_per_second` bound what is asked of it; None: no bound. `partial_indexes`: whether it takes an index of
    which manifests are missing; None: nobody said.
    """

    host: str
    tls_verify: bool
    plain_http: bool = False
    authfile: Path | None = None
    cert_dir: Path | None = None
    max_connections: int | None = None
    requests_per_second: float | None = None
    partial_indexes: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A registry that has another one's repositories, each below `prefix` (empty: by the same name)."""

    host: str
    prefix: str = ""

    def repository(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """One end of a sync: a registry, the storage directory behind one, or both. At least one is set, or else `image`:
    a registry image with a storage inside, which can only be a history.

    Where the directory is known it is read and written directly, and no server stands in the way. Tags that fit one of
    the `immutable` patterns never move there.
    """

    name: str
    registry: Registry | None = None
    storage: Path | None = None
    image: LayoutRef | None = None
    mirrors: tuple[Mirror, ...] = ()
    immutable: tuple[str, ...] = ()

    def is_immutable(self, repository: str, tag: str) -> bool:
        """A pattern with a colon is about REPOSITORY:TAG, any other about the tag."""
        return any(fnmatchcase(f"{repository}:{tag}" if ":" in p else tag, p) for p in self.immutable)


WHOLE_ANSWER: Final = 4
"""How much longer an answer may take as a whole than there may be between two bytes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """All in seconds. `stall`: nothing read or written; `copy`: one start of skopeo as a whole; `request`: one HTTP
    request; `lock`: waiting for another regwrap."""

    stall: float = 60
    copy: float = 3600
    request: float = 30
    lock: float = 3600

    @property
    def answer(self) -> float:
        """For all of an answer that is no blob."""
        return WHOLE_ANSWER * self.request

    @property
    def disk_stall(self) -> float:
        """For programs that wait for the disk alone: a busy one may take its time."""
        return 10 * self.stall


class Engine(StrEnum):
    """How images are copied."""

    AUTO = "auto"
    CURL = "curl"
    STREAM = "stream"
    COPY = "copy"
    SYNC = "sync"
