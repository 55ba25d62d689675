"""HTTP to one registry: who asks, its rate limit, where a redirect leads, what it means that no answer came.

How it is reached is known to `connections`. Each answer is read whole and bounded, but for a blob's bytes, which go out
piece by piece as they come.
Credentials are for the registry's own server; whatever else an answer leads to is asked without them.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProtocolError,
    SSLError,
)

from regwrap.core.answers import Meaning
from regwrap.core.errors import RegwrapError, ToolError
from regwrap.registry.addresses import answered_address, is_same_server, server_of, target_of
from regwrap.registry.answers import GONE
from regwrap.registry.auth import (
    NOBODY,
    Authorization,
    Authorizer,
    is_understood,
    login_refused,
)
from regwrap.registry.connections import Connections
from regwrap.registry.credentials import AskHelper, UnsureError, no_helper
from regwrap.registry.exchange import Body, Request, Response
from regwrap.registry.failures import endlessness, meaning_of_failure, reason_of_failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from urllib.parse import SplitResult

    from regwrap.core.location import Registry
    from regwrap.tools.rate_limit import HostLimiter

_NO_HTTPS: Final = (SSLError, NewConnectionError, ProtocolError)  # some hang up on what is no HTTP
_NO_CONNECTION: Final = (NewConnectionError, ConnectTimeoutError)
_DISGUISES: Final = {403, 404}
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_NO_OUTAGES: Final = {Meaning.NO_NAME, Meaning.UNREADABLE}
_NOT_HAD: Final = {Meaning.UNREADABLE: "the answer of {} cannot be read"}
_MOST_REDIRECTS: Final = 5
_STORE_FACTOR: Final = 10


@dataclass(slots=True)
class Client:
    """Requests to one registry; safe to use from several threads. `timeout` in seconds between two bytes.

    `environment` holds the proxies' variables and SSL_CERT_*, where they are meant to count. Each request takes a slot
    of `limiter`. `note` hears what is odd, and no failure. `ask_helper` asks the
    helper that an authfile names.
    """

    registry: Registry
    timeout: float
    connections: int
    environment: tuple[tuple[str, str], ...]
    limiter: HostLimiter
    note: Callable[[str], None] = lambda _text: None
    ask_helper: AskHelper = no_helper
    _auth: Authorizer = field(init=False)
    _server: str = field(init=False)
    _soon: urllib3.Timeout = field(init=False)
    _patience: urllib3.Timeout = field(init=False)
    _connections: Connections = field(init=False)
    _scheme: str = ""

    def __post_init__(self) -> None:
        self._server = server_of(self.registry.host)
        self.limiter.outage.ask = self.is_there
        self._connections = Connections(
            self.registry, self._server, self.connections, self.environment, self.limiter.stopping, self.note
        )
        self._auth = Authorizer(self.registry, self._fetch_token, self.limiter.logins, self.ask_helper)
        self._soon = urllib3.Timeout(connect=self.timeout, read=self.timeout)
        # a large blob takes a while to be stored
        self._patience = urllib3.Timeout(connect=self.timeout, read=_STORE_FACTOR * self.timeout)

    def request(self, request: Request) -> Response:
        """Send, and again after the registry's challenge. Raises ToolError and UnsureError."""
        auth, access = self._auth, request.access
        said = auth.credentials(access) if request.eager else auth.before(access, reads=request.reads)
        response = self._authorized(request, said)
        if response.status == 401:
            response = self._introduced(request, response, said, _challenges(response))
        elif response.status in _DISGUISES and not (said.header or request.eager):
            response = self._undisguised(request, response)
        return self._followed(request, response) if request.redirect else response

    def refused(self, request: Request, response: Response) -> ToolError | UnsureError:
        """What to raise for a 401 that remained: skopeo says what we have said, unless it is asked in another way."""
        if is_understood(_challenges(response)):
            return login_refused(self.registry, request.access)
        message = Meaning.UNAUTHORIZED.message(f"{self.registry.host} answered 401 to {request.shown}")
        return UnsureError(message, hint=Meaning.UNAUTHORIZED.hint)

    def _authorized(self, request: Request, said: Authorization) -> Response:
        with self._auth.trial(said, request.access) as trial:
            response = self._send(request, said.header)
            trial.was_accepted = {401: False, 403: None}.get(response.status, response.status < 500 or None)
        return response

    def _introduced(self, request: Request, response: Response, said: Authorization, challenges: str) -> Response:
        """Sent again with each answer to the challenges, until one is taken."""
        for answer in self._auth.after(challenges, request.access):
            if answer != said:
                response = self._authorized(request, answer)
                if response.status != 401:
                    self._auth.keep(request.access, answer)
                    break
        return response

    def _undisguised(self, request: Request, response: Response) -> Response:
        """Some say 404 or 403 to who may not see a thing, and ask nobody who he is: a login that is there is tried."""
        login = self._auth.credentials(request.access)
        if not login.header:
            return response
        greeting = self.greeting()
        challenges = _challenges(greeting) if greeting.status == 401 else "Basic"
        again = self._introduced(request, response, NOBODY, challenges)
        if again is response:  # or each request would be sent twice
            self._auth.keep(request.access, login)
        return again

    def address(self, target: str, text: str) -> SplitResult:
        """An address that the registry answered to a request of `target`. Raises UnsureError."""
        return answered_address(f"{self._scheme}://{self._server}{target}", text)

    def elsewhere(self, method: str, url: str, body: Body | None = None, authorization: str = "") -> Response:
        """Ask an address that is not the registry's own (a blob store, a token server). Raises ToolError."""
        return self._elsewhere(Request(method, url, body=body), authorization)

    def _elsewhere(self, request: Request, authorization: str) -> Response:
        scheme, server = urlsplit(request.target)[:2]
        try:
            return self._connections.elsewhere(scheme, server).send(request, authorization, self._timeout(request))
        except HTTPError as error:
            raise self._failure(error, server) from error

    @property
    def server(self) -> str:
        """SCHEME://HOST[:PORT], as it answers; it is asked once where that is not known."""
        if not self._scheme:
            self.request(Request("GET", "/v2/"))
        return f"{self._scheme}://{self._server}"

    def authorization(self, request: Request) -> str:
        """What another program has to say with such a request that reads. A login that was never taken is tried here
        first: programs would try it many times at once."""
        said = self._auth.before(request.access, reads=True)
        if said.entry and not self.limiter.logins.is_accepted(said.entry):
            self.request(request)
            said = self._auth.before(request.access, reads=True)
        return said.header

    def renewed(self, request: Request, refused: str) -> str:
        """The same after the header `refused` was: what it says now, or the same where nothing else is known."""
        self._auth.forget(request.access, refused)
        answer = self.request(request)
        if answer.status == 401:
            raise self.refused(request, answer)
        return self._auth.before(request.access, reads=True).header

    def is_there(self) -> bool:
        """Whether anything answers, and says that it works; no slot is taken, nor a login."""
        for scheme in self._schemes():
            try:
                return self._connections.own(scheme).send(Request("GET", "/v2/"), "", self._soon).status not in GONE
            except HTTPError:
                continue
            except RegwrapError:
                return True  # whatever is wrong there, it is no outage
        return False

    def greeting(self) -> Response:
        """What the registry says to who does not say who he is. Raises ToolError."""
        return self._send(Request("GET", "/v2/"), "")

    def certificate(self) -> bytes:
        """What the registry's server shows, in DER form; empty where it speaks plain HTTP. Raises ToolError."""
        self.greeting()  # finds out which way there is
        return self._connections.own(self._scheme).certificate(self._soon)

    def close(self) -> None:
        """Close the connections that are kept alive."""
        self._connections.close()

    def _schemes(self) -> tuple[str, ...]:
        return (self._scheme,) if self._scheme else self._connections.schemes

    def _send(self, request: Request, authorization: str) -> Response:
        """One request to the registry itself. The first finds out by which scheme it answers."""
        timeout = self._timeout(request)
        for scheme in (schemes := self._schemes()):
            try:
                with self.limiter.slot() as started:
                    response = self._connections.own(scheme).send(request, authorization, timeout)
            except HTTPError as error:
                if scheme != schemes[-1] and isinstance(error, _NO_HTTPS):
                    continue
                if isinstance(error, _NO_CONNECTION):
                    self.limiter.unreachable()
                raise self._failure(error, self.registry.host) from error
            self._scheme = scheme
            if response.status in {429, 503}:
                self.limiter.pushed_back(started, response.headers.get("Retry-After", ""))
            elif response.status < 500:
                self.limiter.answered()
            return response
        raise UnsureError(f"{self._server} speaks neither HTTPS nor HTTP")

    def _timeout(self, request: Request) -> urllib3.Timeout:
        if request.stream is not None:
            return urllib3.Timeout(connect=self.timeout, read=request.stream.stall)
        return self._patience if request.body else self._soon

    def _followed(self, request: Request, response: Response) -> Response:
        """Where the registry's answer leads: a blob store's address is asked without our credentials."""
        if response.status not in _REDIRECTS:
            return response
        address = self.address(request.target, "")
        for _number in range(_MOST_REDIRECTS):
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or not location:
                return response
            address = answered_address(address.geturl(), location)
            if is_same_server(address, self._server):
                again = replace(request, target=target_of(address))
                response = self._authorized(again, self._auth.before(request.access, reads=True))
            else:
                response = self._elsewhere(replace(request, target=address.geturl()), "")
        raise UnsureError(f"{self.registry.host} leads from one address to the next without an end")

    def _fetch_token(self, url: str, authorization: str, form: bytes = b"") -> Response:
        body = Body("application/x-www-form-urlencoded", form) if form else None
        return self.elsewhere("POST" if form else "GET", url, body, authorization)

    def _failure(self, error: HTTPError, host: str) -> ToolError | UnsureError:
        """What to raise for a request to `host` that got no answer."""
        endless = endlessness(error)
        if endless:
            return ToolError(f"{host}: {endless}", hint=Meaning.SILENT.hint, host=host)
        if os.strerror(errno.EMFILE) in f"{error}":
            return ToolError("too many open files", hint="raise ulimit -n, or lower --jobs", transient=True)
        is_ours, meaning = host == self.registry.host, meaning_of_failure(error)
        led = "" if is_ours else f", {Meaning.LED_ASTRAY.happened} ({self.registry.host})"
        hint = meaning.hint if is_ours else f"{Meaning.LED_ASTRAY.hint}; {meaning.hint}".removesuffix("; ")
        if isinstance(error, SSLError):
            return UnsureError(meaning.message(f"{host}{led}"), detail=f"{error}", hint=hint)
        return ToolError(
            meaning.message(f"{_NOT_HAD.get(meaning, '{} could not be reached').format(host)}{led}"),
            detail=reason_of_failure(error),
            hint=hint,
            transient=True,
            host=host,
            outage=is_ours and meaning not in _NO_OUTAGES,
        )


def _challenges(response: Response) -> str:
    return response.headers.get("WWW-Authenticate", "")
