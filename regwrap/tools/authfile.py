"""The file that skopeo and docker keep logins in (containers-auth.json(5)): which entry counts for a repository.

The rules are those of skopeo, which reads the same file beside us (containers/image, pkg/docker/config).
"""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regwrap.core.bounded import read_bounded
from regwrap.core.errors import RegwrapError, UsageError
from regwrap.core.fields import an_object, json_value, or_none
from regwrap.core.hosts import DOCKER_HUB, HUB_NAMES, normal_host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from regwrap.core.location import Registry

_MAX_BYTES: Final = 1024 * 1024
_HUB_IN_STORES: Final = "https://index.docker.io/v1/"


class AuthfileError(RegwrapError):
    """The file cannot be read, or is none. Caught where another way is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What an authfile has for a repository. `entry` is the key that counts, `basic` its USER:PASSWORD in base64.

    `helper` is a program that knows it instead, `server` what that is asked for. `token`: the registry gave it for the
    password (az acr login). `is_ours`: skopeo does not find it (HOST:443, docker's store for all registries).
    """

    entry: str
    basic: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    helper: str = ""
    server: str = ""
    is_ours: bool = False

    @property
    def has_password(self) -> bool:
        """Beside a token there may be none: `az acr login` leaves a user of zeros with an empty one."""
        return bool(self.basic) and not (self.token and _decoded(self.basic).endswith(b":"))

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
    for name, key in _keys(registry, "", helpers):
        if helper := _text(helpers.get(key)):
            return Login(entry=key, helper=helper, server=key, is_ours=key != name)
    for name, key in _keys(registry, repository, auths):
        entry = auths.get(key)
        if isinstance(entry, dict) and isinstance(basic := entry.get("auth"), str):
            token = _text(entry.get("identitytoken"))
            return Login(entry=key, basic=basic, token=token, is_ours=not _is_skopeos(name, key))
    if store := _text(document.get("credsStore")):
        server = _HUB_IN_STORES if registry.host == DOCKER_HUB else registry.host
        return Login(entry=registry.host, helper=store, server=server, is_ours=True)
    return None


def known_login(registry: Registry, repository: str = "") -> Login | None:
    """The same, where a file that cannot be read has none."""
    with suppress(AuthfileError):
        return login_of(registry, repository)
    return None


def read_authfile(path: Path) -> dict[str, object]:
    """Raises AuthfileError."""
    try:
        return or_none(an_object)(json_value(read_bounded(path, _MAX_BYTES))) or {}
    except (OSError, ValueError, UsageError) as error:
        raise AuthfileError(f"{path} cannot be read: {error}") from error


def paths_of(registry: Registry) -> tuple[str, ...]:
    """The repositories, or their first parts, that have logins of their own."""
    auths = _mapping(known_document(registry), "auths")
    host = normal_host(registry.host)
    names = (_normal(key).partition("/") for key in auths)
    return tuple(sorted({path for name, _slash, path in names if name == host and path}))


def known_document(registry: Registry) -> dict[str, object]:
    """All of the registry's authfile, or nothing."""
    with suppress(AuthfileError):
        return read_authfile(registry.authfile) if registry.authfile else {}
    return {}


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


def _keys(registry: Registry, repository: str, known: dict[str, object]) -> Iterator[tuple[str, str]]:
    """What may be meant, and a key that says it; the one that counts most first: the longest path, then the host, as
    skopeo writes it before how others do."""
    named: dict[str, list[str]] = {}
    for key in known:
        named.setdefault(_normal(key), []).append(key)
    host = normal_host(registry.host)
    path = f"/{repository}".rstrip("/")
    while True:
        name = f"{host}{path}"
        keys = named.get(name, []) + (named.get(f"{host}:80{path}", []) if registry.plain_http else [])
        yield from ((name, key) for key in sorted(keys, key=lambda key: (key != name, key)))
        if not path:
            return
        path = path.rpartition("/")[0]


def _normal(key: str) -> str:
    """A key with the one name of its host. Old clients wrote addresses (https://HOST/v1/), which mean a host."""
    bare = key.removeprefix("https://").removeprefix("http://")
    host, slash, path = bare.partition("/")
    return normal_host(host) if bare != key else f"{normal_host(host)}{slash}{path}".rstrip("/")


def _is_skopeos(name: str, key: str) -> bool:
    """Whether skopeo finds the key as well: its own form, or an address of the host as it is written."""
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return key == name or ("/" not in name and name == (DOCKER_HUB if host in HUB_NAMES else host))


def _decoded(text: str) -> bytes:
    with suppress(ValueError):
        return base64.b64decode(text)
    return b""


def _text(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() else ""


def _mapping(document: dict[str, object], name: str) -> dict[str, object]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}
