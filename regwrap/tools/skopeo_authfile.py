"""The authfile that skopeo is given: the user's, or a private one where skopeo would not find a login in that.

skopeo knows no keys with the port that https has anyway, none in upper case, and no store for all registries (docker's
credsStore), which a user of docker has all the same.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import ToolError
from regwrap.core.writing import named_on_error
from regwrap.tools.authfile import Login, known_document, known_login

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from regwrap.core.location import Registry
    from regwrap.tools.helpers import Helpers

_NOBODY: Final = base64.b64encode(b"<token>:").decode()  # skopeo wants a user beside a token


def skopeos_authfile(registry: Registry, repositories: Iterable[str], helpers: Helpers, directory: Path) -> Path | None:
    """None where nobody has an authfile. A private one lies in `directory`, which is deleted with the run."""
    logins = {name: known_login(registry, name) for name in repositories}
    ours = {name: login for name, login in logins.items() if login is not None and login.is_ours}
    found = {name: entry for name, login in ours.items() if (entry := _entry(login, helpers))}
    return _written(registry, found, directory) if found else registry.authfile


def _entry(login: Login, helpers: Helpers) -> dict[str, str]:
    """As an authfile has it; empty where there is none: skopeo asks without a login then, and says what comes of it."""
    known: Login | None = login
    if login.helper:
        known = None
        with suppress(ToolError):
            known = helpers.known(login)
    if known is None:
        return {}
    return {"auth": known.basic or _NOBODY, "identitytoken": known.token} if known.token else {"auth": known.basic}


def _written(registry: Registry, found: dict[str, dict[str, str]], directory: Path) -> Path:
    document = known_document(registry)
    auths = document.get("auths")
    kept = auths if isinstance(auths, dict) else {}
    named = {f"{registry.host}/{name}".rstrip("/"): entry for name, entry in found.items()}
    descriptor, path = tempfile.mkstemp(prefix="auth-", suffix=".json", dir=directory)  # 0600
    with named_on_error(os.fdopen(descriptor, "w", encoding="utf-8")) as file:
        json.dump({**document, "auths": {**kept, **named}}, file)
    return directory / path
