"""The file that skopeo and docker keep logins in (containers-auth.json(5)): which entry counts for a repository.

The rules are those of skopeo, which reads the same file beside us (containers/image, pkg/docker/config).
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.core.bounded import read_bounded
from regwrap.core.errors import RegwrapError, UsageError
from regwrap.core.hosts import DOCKER_HUB, HUB_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from regwrap.core.place import Registry

_MAX_BYTES: Final = 1024 * 1024


class AuthfileError(RegwrapError):
    """The file cannot be read, or is none. Caught where another way is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What an authfile has for a repository. `entry` is the key that counts, `basic` its USER:PASSWORD in base64.

    `helper` is a program that skopeo asks instead; `has_token`: the registry gave it for the password (az acr login).
    """

    entry: str
    basic: str = ""
    helper: str = ""
    has_token: bool = False

    @property
    def shown(self) -> str:
        return f"{self.entry} (by docker-credential-{self.helper})" if self.helper else self.entry


def login_of(registry: Registry, repository: str = "") -> Login | None:
    """The login that counts for a repository, or for the registry as a whole; None where there is none.

    Raises AuthfileError.
    """
    if registry.authfile is None:
        return None
    document = read_authfile(registry.authfile)
    helpers, auths = _mapping(document, "credHelpers"), _mapping(document, "auths")
    if helper := helpers.get(registry.host) or document.get("credsStore"):
        return Login(entry=registry.host, helper=f"{helper}")
    for key in _keys(registry.host, repository, auths):
        entry = auths.get(key)
        if isinstance(entry, dict) and isinstance(basic := entry.get("auth"), str):
            return Login(entry=key, basic=basic, has_token=bool(entry.get("identitytoken")))
    return None


def known_login(registry: Registry, repository: str = "") -> Login | None:
    """The same, where a file that cannot be read has none."""
    with suppress(AuthfileError):
        return login_of(registry, repository)
    return None


def read_authfile(path: Path) -> dict[str, object]:
    """Raises AuthfileError."""
    try:
        document = json.loads(read_bounded(path, _MAX_BYTES))
    except (OSError, ValueError, RecursionError, UsageError) as error:
        raise AuthfileError(f"{path} cannot be read: {error}") from error
    return document if isinstance(document, dict) else {}


def login_advice(registry: Registry, repository: str = "") -> str:
    """What to do after a registry's refusal: no login and a wrong one read differently."""
    if registry.authfile is None:
        return f"no authfile has a login for {registry.host}: skopeo login {registry.host}, or set authfile:"
    try:
        login = login_of(registry, repository)
    except AuthfileError as error:
        return f"the authfile is of no use: {error}"
    where = f"skopeo login --authfile {registry.authfile} {registry.host}"
    if login is None:
        name = f"{registry.host}/{repository}".removesuffix("/")
        return f"{registry.authfile} has no login for {name}: {where}"
    return f"the login {login.shown} of {registry.authfile} was refused, check user, password and rights: {where}"


def _keys(host: str, repository: str, auths: dict[str, object]) -> Iterator[str]:
    """Those that fit, the one that counts most first: the longest path, then the host, then as old clients wrote it."""
    path = f"{host}/{repository}".rstrip("/")
    while path:
        yield path
        path = path.rpartition("/")[0]
    for key in auths:
        bare = key.removeprefix("https://").removeprefix("http://")
        if (bare != key and _hub(bare.partition("/")[0]) == _hub(host)) or _hub(key) == DOCKER_HUB == _hub(host):
            yield key


def _hub(host: str) -> str:
    return DOCKER_HUB if host in HUB_NAMES else host


def _mapping(document: dict[str, object], name: str) -> dict[str, object]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}
