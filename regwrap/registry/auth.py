"""Who we are to a registry: its challenges (RFC 9110, 11.6.1), basic credentials, tokens (distribution's
docs/spec/auth/token.md).

Credentials go out to the registry and to the token server that it names, and only after it has asked for them once.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlencode

from regwrap.core.errors import ToolError
from regwrap.registry.addresses import answered_address
from regwrap.registry.credentials import UnsureError, basic_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from regwrap.core.place import Registry
    from regwrap.registry.client import Response

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
    """GET an address of a token server with an Authorization header, or an empty one. Raises ToolError."""

    def __call__(self, url: str, authorization: str) -> Response: ...


@dataclass(slots=True)
class Authorizer:
    """What to say to one registry; safe to use from several threads."""

    registry: Registry
    fetch: FetchToken
    _known: dict[Access, str] = field(default_factory=dict)
    _basic: str = ""
    _bearer: Challenge | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, access: Access, *, reads: bool) -> str:
        """The Authorization header of a first request; empty for none. It saves each repository a refused request once
        the registry has taken credentials, or given a token for another repository to read from."""
        with self._lock:
            known, basic, bearer = self._known.get(access), self._basic, self._bearer
        if known is not None:
            return known
        if reads and access.repository and bearer is not None:
            return self._keep(access, self._token(bearer, access.pull_scope, ()))
        return basic

    def credentials(self) -> str:
        """The authfile's credentials as a header; empty where it has none."""
        basic = basic_credentials(self.registry)
        return f"Basic {basic}" if basic else ""

    def after(self, challenges: str, access: Access) -> str | None:
        """The Authorization header that a refusal's WWW-Authenticate asks for; None where we cannot answer it."""
        for challenge in parse_challenges(challenges):
            if challenge.kind == "basic" and (header := self.credentials()):
                with self._lock:
                    self._basic = header
                return self._keep(access, header)
            if challenge.kind == "bearer":
                scope = challenge.parameters.get("scope", "")
                header = self._keep(access, self._token(challenge, scope, access.more_scopes))
                if scope == access.pull_scope:
                    with self._lock:
                        self._bearer = challenge
                return header
        return None

    def _keep(self, access: Access, header: str) -> str:
        with self._lock:
            self._known[access] = header
        return header

    def _token(self, challenge: Challenge, scope: str, more: tuple[str, ...]) -> str:
        host, parameters = self.registry.host, challenge.parameters
        if not parameters.get("realm"):
            raise UnsureError(f"{host} names no token server")
        realm = answered_address(f"https://{host}", parameters["realm"])
        asked = [("service", parameters.get("service", "")), ("scope", scope), *(("scope", other) for other in more)]
        query = "&".join(part for part in (realm.query, urlencode([pair for pair in asked if pair[1]])) if part)
        try:
            answer = self.fetch(realm._replace(query=query).geturl(), self.credentials())
        except ToolError as error:
            raise UnsureError(f"the token server of {host} failed: {error}") from error
        token = _token_in(answer) if answer.status == 200 else None
        if token is None:
            raise UnsureError(f"the token server of {host} answered {answer.status}, and no token")
        return f"Bearer {token}"


def _token_in(answer: Response) -> str | None:
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
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
    text = value[1:-1] if value.endswith('"') and len(value) > 1 else value[1:]
    return text.replace('\\"', '"').replace("\\\\", "\\")
