"""What is asked of a registry and what it answers: a request with its body, a whole answer, one that still comes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from urllib3.exceptions import HTTPError, ReadTimeoutError

from regwrap.core.answers import Meaning
from regwrap.core.errors import ToolError
from regwrap.registry.auth import WHOLE_REGISTRY, Access
from regwrap.registry.failures import endlessness
from regwrap.registry.patience import bounded_answer, head_is_read

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Mapping

    import urllib3

    from regwrap.core.location import Timeouts

_PIECE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries. `size` is needed for what comes in pieces, which may be asked for twice. `content_range`:
    the bytes FIRST-LAST that it is of something larger."""

    media_type: str = ""
    data: bytes | Iterable[bytes | memoryview] = b""
    size: int | None = None
    content_range: str = ""

    @property
    def headers(self) -> dict[str, str]:
        kind = {"Content-Type": self.media_type} if self.media_type else {}
        part = {"Content-Range": self.content_range} if self.content_range else {}
        return {**kind, **part} if self.size is None else {**kind, **part, "Content-Length": f"{self.size}"}


@dataclass(frozen=True, slots=True)
class Request:
    """`target` is a path of the registry, with its query. `redirect`: follow one, as blobs are often elsewhere.
    `eager`: send the authfile's credentials at once, to what does not ask for them. `first_byte`: no more of the body
    is wanted, nor read. `stream`: the body of a good answer is not read but handed out, within these times, from the
    byte `start` on where the server knows ranges."""

    method: str
    target: str
    access: Access = WHOLE_REGISTRY
    body: Body | None = None
    redirect: bool = False
    eager: bool = False
    first_byte: bool = False
    stream: Timeouts | None = None
    start: int = 0

    @property
    def range(self) -> str:
        if self.first_byte:
            return "bytes=0-0"
        return f"bytes={self.start}-" if self.start else ""

    @property
    def reads(self) -> bool:
        return self.method in {"GET", "HEAD"}

    @property
    def is_plain(self) -> bool:
        """Whether nothing goes with it, and what comes is one answer that is read as a whole."""
        return self.reads and self.body is None and self.stream is None and not self.range

    @property
    def shown(self) -> str:
        return f"{self.method} {self.target.partition('?')[0]}"


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer; names of headers in any case. `stream`: what is still to come of it, instead of a body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    stream: Stream | None = None


@dataclass(slots=True, kw_only=True)
class Stream:
    """The body of an answer as it comes, for the thread that asked."""

    host: str
    answer: urllib3.BaseHTTPResponse
    timeouts: Timeouts
    stopping: threading.Event | None
    _latest: float = field(init=False)

    def __post_init__(self) -> None:
        self._latest = time.monotonic() + self.timeouts.copy

    def pieces(self) -> Iterator[bytes]:
        """Raises ToolError where they stop coming, or take longer than `timeouts.copy`."""
        while data := self._read():
            yield data
        self.answer.release_conn()

    def close(self) -> None:
        self.answer.close()

    def _read(self) -> bytes:
        left = self._latest - time.monotonic()
        try:
            with bounded_answer(max(0.0, left), self.stopping):
                head_is_read()
                return self.answer.read(_PIECE_BYTES, decode_content=False)
        except (HTTPError, ValueError) as error:  # a number in it that is none
            if endlessness(error):
                raise self._late(f"had not sent all of it after {self.timeouts.copy:g} s") from error
            if isinstance(error, ReadTimeoutError):
                raise self._late(f"made no progress for {self.timeouts.stall:g} s") from error
            what = f"{self.host} cut its answer off"
            raise ToolError(what, detail=f"{error}", transient=True, host=self.host) from error

    def _late(self, how: str) -> ToolError:
        return ToolError(f"{self.host} {how}", hint=Meaning.SILENT.hint, transient=True, host=self.host)
