"""Blobs sent to one registry (distribution-spec, "Pushing Blobs"): in one piece, which all registries take; what broke
goes on where it broke, if the registry says where that is, and then in pieces, so that the next break costs less.

Whatever was sent before, the registry hashes the whole blob in the end: only its 201 to that request counts.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from regwrap.core.errors import RegwrapError, ToolError
from regwrap.registry.addresses import is_same_server, target_of
from regwrap.registry.answers import raise_if_later
from regwrap.registry.auth import Access
from regwrap.registry.credentials import UnsureError
from regwrap.registry.exchange import Body, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from urllib.parse import SplitResult

    from regwrap.core.model import Digest
    from regwrap.registry.client import Client

_PIECE_BYTES: Final = 16 * 1024 * 1024  # more than the 5 MiB that stores like S3 want of each but the last
_BYTES: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A blob to send. `pieces` gives its bytes from one place up to another, as often as it is asked. `unseen`: nobody
    has asked whether the repository has it, so that is asked with the same request."""

    repository: str
    digest: Digest
    size: int
    pieces: Callable[[int, int], Iterable[bytes | memoryview]]
    unseen: bool = False

    def body(self, start: int, end: int) -> Body:
        return Body(_BYTES, self.pieces(start, end), end - start)


@dataclass(slots=True)
class _Session:
    """An upload that the registry has begun for `access`: where it goes on, and with which byte."""

    access: Access
    address: SplitResult
    offset: int = 0

    def came_to(self, offset: int, address: SplitResult) -> None:
        self.offset, self.address = offset, address


@dataclass(slots=True)
class Uploads:
    """Uploads to one registry; safe to use from several threads, of which no two send the same blob into the same
    repository. Those that broke are remembered until `close`."""

    client: Client
    piece: int = _PIECE_BYTES
    _broken: dict[tuple[str, Digest], _Session] = field(default_factory=dict)

    def send(self, parcel: Parcel) -> Response:
        """Send a blob; what the registry says, 201: it is there. One that is `unseen` may be there with no byte sent.

        Raises ToolError and UnsureError. After a transient one the same call goes on where this one broke.
        """
        broken = self._broken.pop((parcel.repository, parcel.digest), None)
        if broken is not None:
            answer = self._gone_on(parcel, broken)
            if answer.status == 201:
                return answer
        return self._begun(parcel, self._in_one_piece)

    def begun(self, request: Request, answer: Response) -> SplitResult:
        """Where an upload goes on that an answer of 202 has begun. Raises UnsureError."""
        return self.client.address(request.target, answer.headers.get("Location", "/"))

    def cancel(self, address: SplitResult, access: Access) -> None:
        """A registry keeps what was sent of an upload for a week; told so, it forgets it."""
        with suppress(RegwrapError):
            self._cancel(address, access)

    def close(self) -> None:
        """Cancel what nobody will go on with; a registry that does not answer is not asked for each."""
        with suppress(RegwrapError):
            while self._broken and not self.client.limiter.outage.is_over:
                _key, session = self._broken.popitem()
                self._cancel(session.address, session.access)

    # --- ways

    def _gone_on(self, parcel: Parcel, broken: _Session) -> Response:
        """What comes of the rest, or of all of it in pieces where the registry has kept nothing."""
        answer = self._state(parcel, broken)
        if answer.status == 204 and broken.offset:
            answer = self._watched(parcel, broken, self._in_pieces)
        elif answer.status != 404:
            self.cancel(broken.address, broken.access)
        if answer.status != 201 and parcel.size > self.piece:
            answer = self._begun(parcel, self._in_pieces)
        return answer

    def _state(self, parcel: Parcel, broken: _Session) -> Response:
        """Ask how much of the upload the registry has (distribution-spec, "Pushing a blob in chunks"): 204."""
        request = Request("GET", target_of(broken.address), broken.access)
        try:
            answer = self.client.request(request)
            raise_if_later(self.client.registry.host, request.shown, answer)
        except ToolError as error:
            self._keep(parcel, broken, error)
            raise
        offset = _end_of(answer)
        broken.came_to(offset if offset <= parcel.size else 0, self._next(request, answer, broken))
        return answer

    def _begun(self, parcel: Parcel, upload: Callable[[Parcel, _Session], Response]) -> Response:
        access, target = Access(parcel.repository), f"/v2/{parcel.repository}/blobs/uploads/"
        request = Request("POST", target, access, Body())
        # a mount from the repository itself: 201 where it has the blob, else 202 as without it
        own = replace(request, target=f"{target}?{mounting(parcel.digest, parcel.repository)}")
        answer = self.client.request(own) if parcel.unseen else None
        if answer is None or answer.status not in {201, 202}:
            answer = self._answered(request)
        if answer.status != 202 or not answer.headers.get("Location"):
            return answer
        return self._watched(parcel, _Session(access, self.begun(request, answer)), upload)

    def _watched(self, parcel: Parcel, session: _Session, upload: Callable[[Parcel, _Session], Response]) -> Response:
        """Send it that way: what breaks is kept for the next try, what is refused is cancelled."""
        try:
            answer = upload(parcel, session)
        except RegwrapError as error:
            self._keep(parcel, session, error)
            raise
        if answer.status != 201:
            self.cancel(session.address, session.access)
        return answer

    def _keep(self, parcel: Parcel, session: _Session, error: RegwrapError) -> None:
        if isinstance(error, ToolError) and error.transient and self._is_own(session.address):
            self._broken[parcel.repository, parcel.digest] = session
        else:
            self.cancel(session.address, session.access)

    def _in_one_piece(self, parcel: Parcel, session: _Session) -> Response:
        return self._finished(parcel, session, parcel.body(0, parcel.size))

    def _in_pieces(self, parcel: Parcel, session: _Session) -> Response:
        """From the session's offset on; the first answer that is no yes ends it."""
        while session.offset < parcel.size:
            start, end = session.offset, min(session.offset + self.piece, parcel.size)
            body = replace(parcel.body(start, end), content_range=f"{start}-{end - 1}")
            request = Request("PATCH", target_of(session.address), session.access, body)
            answer = self._answered(request)
            reached = _end_of(answer) or end
            if answer.status not in {202, 204} or not start < reached <= end:
                return Response(416, answer.headers, answer.body)
            session.came_to(reached, self._next(request, answer, session))
        return self._finished(parcel, session, parcel.body(parcel.size, parcel.size))

    def _finished(self, parcel: Parcel, session: _Session, body: Body) -> Response:
        """The registry hashes all that came, and has the blob. A store of its own gets it without our credentials."""
        query = f"{session.address.query}&{urlencode({'digest': f'{parcel.digest}'})}".removeprefix("&")
        address = session.address._replace(query=query)
        if self._is_own(address):
            return self._answered(Request("PUT", target_of(address), session.access, body))
        answer = self.client.elsewhere("PUT", address.geturl(), body)
        if answer.status in {401, 403}:  # perhaps another name of the registry; skopeo gives that one the login as well
            what = f"the upload that POST /v2/{parcel.repository}/blobs/uploads/ led to"
            raise UnsureError(f"{address.netloc} answered {answer.status} to {what}")
        return answer

    # --- requests

    def _cancel(self, address: SplitResult, access: Access) -> None:
        if self._is_own(address) and address.path.startswith("/v2/"):
            self.client.request(Request("DELETE", target_of(address), access))

    def _answered(self, request: Request) -> Response:
        answer = self.client.request(request)
        raise_if_later(self.client.registry.host, request.shown, answer)
        if answer.status == 401:
            raise self.client.refused(request, answer)
        return answer

    def _next(self, request: Request, answer: Response, session: _Session) -> SplitResult:
        """Where it goes on: each answer may name another address."""
        return self.begun(request, answer) if answer.headers.get("Location") else session.address

    def _is_own(self, address: SplitResult) -> bool:
        return is_same_server(address, self.client.registry.host)


def mounting(digest: Digest, source: str) -> str:
    """The query that asks for the blob of another repository (distribution-spec, "Mounting a blob")."""
    return urlencode({"mount": f"{digest}", "from": source})


def _end_of(answer: Response) -> int:
    """How many bytes the registry has by its header Range, `0-LAST`: for none it says 0-0, as for one."""
    found = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", answer.headers.get("Range", "").strip())
    return int(found[1]) + 1 if found and found[1] != "0" else 0
