"""Blobs of a registry: for another program to fetch, their addresses, what it has to say there, and what came of it;
or piece by piece for this process, which sends them on.

What another program cannot know stays here: logins, tokens, which scheme works. Whatever it cannot do at all raises
UnsureError, and skopeo is asked instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from regwrap.core.answers import Meaning
from regwrap.core.errors import ToolError
from regwrap.registry.answers import refusal
from regwrap.registry.auth import Access
from regwrap.registry.certificates import curl_options, led_options, meaning_of_tls
from regwrap.registry.credentials import UnsureError
from regwrap.registry.exchange import Request, Response, Stream
from regwrap.registry.proxies import curl_variables, proxy_for
from regwrap.tools.curl import Download, DownloadOutcome, Route

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from regwrap.core.location import Timeouts
    from regwrap.core.manifest import Descriptor
    from regwrap.registry.client import Client

# curl(1), EXIT CODES
UNSUPPORTED_RANGE: Final = 33
_HTTP_ERROR: Final = 22
_UNWRITTEN: Final = 23  # it does not say why
_TOO_LATE: Final = 28
_NO_CONNECTION: Final = {5, 6, 7}
_AWAY: Final = {7, 52, 55, 56}
_TLS: Final = {35, 53, 54, 58, 59, 60, 66, 77, 80, 82, 83, 90, 91}
_PASSING: Final = {5, 6, 7, 16, 18, 35, 52, 55, 56, 92}
DISGUISES: Final = {401, 403, 404}
_LED_HINT: Final = "check the address that the registry gives for its storage"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobAddress:
    """Where a blob is, and with which header it is to be had."""

    url: str
    authorization: str


@dataclass(frozen=True, slots=True)
class Downloads:
    """Of one registry; safe to use from several threads."""

    client: Client

    def address(self, repository: str, blob: Descriptor) -> BlobAddress:
        """Raises UnsureError and ToolError."""
        request = _request(repository, blob)
        authorization = self.client.authorization(request)
        return BlobAddress(url=f"{self.client.server}{request.target}", authorization=authorization)

    def is_renewed(self, repository: str, blob: Descriptor, refused: str) -> bool:
        """Whether there is something else to say than the header `refused`: a token that has expired has a successor,
        and some ask nobody who he is. Raises UnsureError and ToolError."""
        return self.client.renewed(_request(repository, blob), refused) != refused

    def route(self, place: Path) -> Route:
        """How curl reaches it; files that it needs are made in the private directory `place`. Raises ToolError."""
        registry, variables = self.client.registry, dict(self.client.environment)
        server = urlsplit(self.client.server)
        proxy = proxy_for(server.scheme, server.netloc, variables)
        is_encrypted = "https" in {server.scheme, proxy.scheme if proxy else ""}
        options_for = curl_options if is_encrypted else led_options
        return Route(
            environment=curl_variables(server.scheme, server.netloc, variables),
            options=options_for(registry, variables, place),
        )

    def pieces(self, repository: str, blob: Descriptor, start: int, timeouts: Timeouts) -> Generator[memoryview]:
        """Its bytes from `start` on as they come, by this process itself; not more than it has, and nobody has hashed
        them. Raises UnsureError and ToolError."""
        host, what = self.client.registry.host, f"blob {blob.digest.short} of {repository}"
        request = replace(_request(repository, blob), method="GET", redirect=True, stream=timeouts, start=start)
        answer = self.client.request(request)
        stream = self._good(request, what, answer)
        at = start if answer.status == 206 else 0
        try:
            for data in stream.pieces():
                skipped, at = max(0, start - at), at + len(data)
                if at > blob.size:
                    raise ToolError(f"{host} sends more than the {blob.size} bytes that {what} has")
                if at > start:
                    yield memoryview(data)[skipped:]
        finally:
            stream.close()
        if at < blob.size:
            raise ToolError(f"{host} sent {at} bytes of {what}, which has {blob.size}", transient=True, host=host)

    def _good(self, request: Request, what: str, answer: Response) -> Stream:
        """The stream of an answer that has one."""
        host = self.client.registry.host
        if answer.status == 401:
            raise self.client.refused(request, answer)
        stream = answer.stream
        if stream is None:
            raise refusal(host, what, answer)
        if "html" in answer.headers.get("Content-Type", ""):
            stream.close()
            raise _web_page(host, what)
        if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {request.start}-"):
            stream.close()
            raise UnsureError(f"{host} answered with another part of {what} than it was asked for")
        return stream

    def inform_limiter(self, outcome: DownloadOutcome, started: float) -> None:
        """The host's limiter hears how it answered to what began at `started`."""
        limiter = self.client.limiter
        if outcome.status in {429, 503}:
            limiter.pushed_back(started, outcome.retry_after)
        elif outcome.exit_code in _NO_CONNECTION and not self._led(outcome):
            limiter.unreachable()
        elif 0 < outcome.status < 500:
            limiter.answered()

    def failure(self, what: str, outcome: DownloadOutcome, download: Download, stall: float) -> ToolError:
        """The error of a download that has failed. `what` names the blob; `stall` is how long nothing may come."""
        host = self.client.registry.host
        if outcome.excess and "html" not in outcome.media_type:
            return ToolError(f"{host} sends more than the {download.size} bytes that {what} has")
        if outcome.exit_code == _HTTP_ERROR:
            return refusal(host, f"{what}{self._led(outcome)}", Response(outcome.status, {}, b""))
        if "html" in outcome.media_type:
            return _web_page(host, f"{what}{self._led(outcome)}")
        if outcome.exit_code == _TOO_LATE:
            how = f"made no progress for {stall:g} s" if "slow" in outcome.message else "took too long"
            message = f"{host} {how} with {what}{self._led(outcome)}"
            return ToolError(message, detail=outcome.message, transient=True, host=host)
        if outcome.exit_code == _UNWRITTEN:
            why = "no space left, a quota, too many open files, permission denied or an input/output error"
            hint = "look at the disk here (df, df -i, quota) and at ulimit -n, then rerun"
            return ToolError(
                f"{what} could not be written here: {why}", detail=f"{outcome.message} (curl 23)", hint=hint
            )
        meaning = meaning_of_tls(outcome.message) if outcome.exit_code in _TLS else Meaning.OTHER
        is_transient = outcome.exit_code in _PASSING and meaning is Meaning.OTHER
        return ToolError(
            f"{host} did not send {what}{self._led(outcome)}",
            detail=f"{outcome.message} (curl {outcome.exit_code})",
            hint=meaning.hint or (_LED_HINT if self._led(outcome) else ""),
            transient=is_transient,
            host=host,
            outage=outcome.exit_code in _AWAY and not self._led(outcome),
        )

    def _led(self, outcome: DownloadOutcome) -> str:
        """Whose answer it is, where the registry's own led to another."""
        server = urlsplit(outcome.url).netloc
        return (
            f" from {server}, where its answer leads" if server not in {"", urlsplit(self.client.server).netloc} else ""
        )


def _request(repository: str, blob: Descriptor) -> Request:
    return Request("HEAD", f"/v2/{repository}/blobs/{blob.digest}", Access(repository))


def _web_page(host: str, what: str) -> ToolError:
    page = f"{host} answered {what} with a web page"
    return ToolError(page, hint=Meaning.LOGIN_PAGE.hint, transient=True, host=host)
