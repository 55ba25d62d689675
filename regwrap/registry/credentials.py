"""Credentials for a registry from an authfile, as far as HTTP needs them without a helper program."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from regwrap.core.errors import RegwrapError
from regwrap.tools.authfile import AuthfileError, Login, login_of

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.core.place import Registry


class UnsureError(RegwrapError):
    """The probe cannot tell; skopeo shall. Caught in `observe` and `carry`."""


def usable_login(registry: Registry, repository: str = "") -> Login | None:
    """The login that counts for the repository, if our own requests can use it; None where the authfile has none.

    Raises UnsureError for what only skopeo can use.
    """
    try:
        login = login_of(registry, repository)
    except AuthfileError as error:
        raise UnsureError(f"{error}") from error
    if login is None or registry.authfile is None:
        return None
    if login.helper:
        raise UnsureError(f"{registry.authfile} names a credential helper for {registry.host}")
    if login.has_token:
        raise UnsureError(f"{registry.authfile} has an identity token for {login.entry}")
    _check_base64(login.basic, registry.authfile)
    return login


def _check_base64(text: str, path: Path) -> None:
    try:
        base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UnsureError(f"{path}: an auth entry is not base64") from error
