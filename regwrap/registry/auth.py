"""Who we are to a registry: its challenges (RFC 9110, 11.6.1), basic credentials, tokens (distribution's
docs/spec/auth/token.md).

Credentials go out to the registry and to the token server that it names, and only after it has asked for them once.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlencode

from regwrap.core.answers import Meaning
from regwrap.core.errors import ToolError
from regwrap.core.fields import json_object
from regwrap.registry.addresses import answered_address
from regwrap.registry.credentials import AskHelper, UnsureError, no_helper, usable_login
from regwrap.tools.authfile import Login, login_advice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from urllib.parse import SplitResult

    from regwrap.core.location import Registry
    from regwrap.registry.exchange import Response
    from regwrap.tools.login_limiter import LoginLimiter, Trial

_MAX_HEADER: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Access:
    """What a request is for; an authorization is kept for each. Without a repository: for the registry as a whole.
    `source`: a repository that a blob is mounted from, which has to be allowed as well."""

    repository: str = ""
    source: str = ""

    @property
    def pull_scope(self) -> str:
        return f"repository:{self.repository}:pull"

    @property
    def more_scopes(self) -> tuple[str, ...]:
        return (f"repository:{self.source}:pull",) if self.source else ()


WHOLE_REGISTRY: Final = Access()


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in that a registry offers. `kind` is in lower case."""

    kind: str
    parameters: Mapping[str, str]


class FetchToken(Protocol):
    """GET an address of a token server with an Authorization header, or an empty one; POST a form. Raises ToolError."""

    def __call__(self, url: str, authorization: str, form: bytes = b"") -> Response: ...


@dataclass(frozen=True, slots=True)
class Authorization:
    """A header's value. `entry`: the authfile's key whose password is in it; empty for tokens, and for none."""

    header: str = ""
    entry: str = ""


NOBODY: Final = Authorization()


@dataclass(slots=True)
class Authorizer:
    """What to say to one registry; safe to use from several threads. A login is tried through `logins`; `ask` asks the
    helper that has one."""

    registry: Registry
    fetch: FetchToken
    logins: LoginLimiter
    ask: AskHelper = no_helper
    _known: dict[Access, Authorization] = field(default_factory=dict)
    _accepts_basic: bool = False
    _bearer: Challenge | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, access: Access, *, reads: bool) -> Authorization:
        """What to say with a first request. It saves each repository a refused request once the registry has taken
        credentials, or given a token for another repository to read from."""
        with self._lock:
            known, accepts_basic, bearer = self._known.get(access), self._accepts_basic, self._bearer
        if known is not None:
            return known
        if reads and access.repository and bearer is not None:
            return self.keep(access, self._token(bearer, access, access.pull_scope))
        return self.credentials(access) if accepts_basic else NOBODY

    def forget(self, access: Access, header: str) -> None:
        """A token is good for minutes: this one was refused."""
        with self._lock:
            known = self._known.get(access)
            if known is not None and known.header == header and not known.entry:
                del self._known[access]

    def credentials(self, access: Access) -> Authorization:
        """The password that the authfile has for the repository, by itself or through a helper."""
        login = self._login(access)
        return Authorization(f"Basic {login.basic}", login.shown) if login and login.has_password else NOBODY

    def after(self, challenges: str, access: Access) -> Iterator[Authorization]:
        """What a refusal's WWW-Authenticate asks for, one after the other. Raises UnsureError where we can answer none
        of them as they should be."""
        unsure: UnsureError | None = None
        answers = 0
        for challenge in parse_challenges(challenges):
            try:
                found = self._answer(challenge, access)
            except UnsureError as error:
                unsure = error
                continue
            if found is not None:
                answers += 1
                yield found
        if unsure is not None and not answers:
            raise unsure

    @contextmanager
    def trial(self, said: Authorization, access: Access) -> Iterator[Trial]:
        """The slot of one request that says `said`. Raises ToolError once its password was refused too often."""
        with self.logins.trial(said.entry, lambda: login_advice(self.registry, access.repository)) as trial:
            yield trial

    def keep(self, access: Access, authorization: Authorization) -> Authorization:
        """It was taken: the next request of that kind begins with it."""
        with self._lock:
            self._accepts_basic = self._accepts_basic or bool(authorization.entry)
            self._known[access] = authorization
        return authorization

    def _login(self, access: Access) -> Login | None:
        return usable_login(self.registry, access.repository, self.ask)

    def _answer(self, challenge: Challenge, access: Access) -> Authorization | None:
        if challenge.kind == "basic":
            login = self.credentials(access)
            return login if login.header else None
        if challenge.kind != "bearer":
            return None
        scope = challenge.parameters.get("scope", "")
        found = self._token(challenge, access, scope)
        if scope == access.pull_scope:
            with self._lock:
                self._bearer = challenge
        return found

    def _token(self, challenge: Challenge, access: Access, scope: str) -> Authorization:
        host, parameters = self.registry.host, challenge.parameters
        if not parameters.get("realm"):
            raise UnsureError(f"{host} names no token server")
        realm = answered_address(f"https://{host}", parameters["realm"])
        more = (("scope", other) for other in access.more_scopes)
        asked = [("service", parameters.get("service", "")), ("scope", scope), *more]
        answer = self._fetched(realm, [pair for pair in asked if pair[1]], access)
        token = _token_in(answer) if answer.status == 200 else None
        if token is None:
            raise UnsureError(f"the token server of {host} answered {answer.status}, and no token")
        return Authorization(f"Bearer {token}")

    def _fetched(self, realm: SplitResult, asked: list[tuple[str, str]], access: Access) -> Response:
        login = self._login(access)
        is_token, entry = bool(login and login.token), login.shown if login else ""
        if login and is_token:  # distribution, docs/spec/auth/oauth.md: it stands in a form
            more = [("grant_type", "refresh_token"), ("refresh_token", login.token), ("client_id", "regwrap")]
            request = (realm.geturl(), "", urlencode([*asked, *more]).encode())
        else:
            query = "&".join(part for part in (realm.query, urlencode(asked)) if part)
            request = (realm._replace(query=query).geturl(), f"Basic {login.basic}" if login else "", b"")
        try:
            with self.trial(Authorization(entry=entry), access) as trial:
                answer = self.fetch(*request)
                trial.was_accepted = {200: True, 401: False}.get(answer.status)
        except ToolError as error:
            if not error.transient:
                raise
            raise UnsureError(f"the token server of {self.registry.host} failed: {error}") from error
        if answer.status == 401 and entry:
            raise login_refused(self.registry, access)
        return answer


def login_refused(registry: Registry, access: Access) -> ToolError:
    """The registry wants to know who we are, and has heard all that the authfile has: skopeo could say no more."""
    what = f"{registry.host}/{access.repository}".removesuffix("/")
    message = Meaning.UNAUTHORIZED.message(f"{registry.host} answered 401 for {what}")
    return ToolError(message, hint=login_advice(registry, access.repository))


def is_understood(challenges: str) -> bool:
    """Whether a refusal asks for what we and skopeo can say."""
    return any(challenge.kind in {"basic", "bearer"} for challenge in parse_challenges(challenges))


def _token_in(answer: Response) -> str | None:
    try:
        document = json_object(answer.body)
    except ValueError:
        return None
    token = document.get("token") or document.get("access_token")
    # what is no header's text is no token, and is never shown
    return token if isinstance(token, str) and token.isascii() and token.isprintable() else None


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """What a WWW-Authenticate header offers, in its order. Pure; takes time in proportion to the header's length."""
    found: list[tuple[str, dict[str, str]]] = []
    for part in _split(header[:_MAX_HEADER]):
        name, equals, value = part.partition("=")
        kind, _, key = name.strip().partition(" ")
        if key or not equals:  # `KIND KEY=VALUE` or `KIND` begins another challenge
            found.append((kind.lower(), {}))
            name = key
        if equals and found:
            found[-1][1][name.strip().lower()] = _unquoted(value.strip())
    return tuple(Challenge(kind, parameters) for kind, parameters in found if kind)


def _split(header: str) -> Iterator[str]:
    """The parts between commas that no quotes are around."""
    start, is_quoted, is_escaped = 0, False, False
    for index, char in enumerate(header):
        if is_escaped:
            is_escaped = False
        elif char == "\\" and is_quoted:
            is_escaped = True
        elif char == '"':
            is_quoted = not is_quoted
        elif char == "," and not is_quoted:
            yield header[start:index]
            start = index + 1
    yield header[start:]


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    text = value[1:-1] if value.endswith('"') else value[1:]
    return text.replace('\\"', '"').replace("\\\\", "\\")
