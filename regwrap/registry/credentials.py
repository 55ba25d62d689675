"""Credentials for a registry, from an authfile or from the helper program that it names."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING

from regwrap.core.errors import RegwrapError, ToolError
from regwrap.tools.authfile import AuthfileError, Login, login_of

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.core.location import Registry

AskHelper = Callable[[Login], Login | None]


class UnsureError(RegwrapError):
    """Our own requests cannot tell; skopeo is asked instead, where it can be."""


def usable_login(registry: Registry, repository: str, ask: AskHelper) -> Login | None:
    """The login that counts for the repository; None where the authfile has none.

    Raises UnsureError where its helper says none, or the file cannot be used; skopeo may understand them.
    """
    try:
        login = login_of(registry, repository)
        if login is not None and login.helper:
            login = ask(login)
    except (AuthfileError, ToolError) as error:
        raise UnsureError(f"{error}", hint=error.hint) from error
    if login is not None and registry.authfile is not None:
        _check_base64(login.basic, registry.authfile)
    return login


def no_helper(login: Login) -> Login | None:
    """For who has no programs."""
    raise ToolError(f"{login.shown} is a credential helper's, and none can be started")


def _check_base64(text: str, path: Path) -> None:
    try:
        base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UnsureError(f"{path}: an auth entry is not base64") from error
