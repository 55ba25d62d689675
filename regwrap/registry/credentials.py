"""Credentials for a registry from an authfile, as far as HTTP needs them without a helper program."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from regwrap.core.errors import RegwrapError

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.core.place import Registry


class UnsureError(RegwrapError):
    """The probe cannot tell; skopeo shall. Caught in `observe` and `carry`."""


def basic_credentials(registry: Registry) -> str | None:
    """`user:password` in base64 from the authfile (containers-auth.json(5)); None where it has no entry."""
    if registry.authfile is None:
        return None
    document = _read_json(registry.authfile)
    helpers = document.get("credHelpers")
    if document.get("credsStore") or (isinstance(helpers, dict) and registry.host in helpers):
        raise UnsureError(f"{registry.authfile} names a credential helper for {registry.host}")
    auths = document.get("auths")
    for key in _auth_keys(registry.host):
        entry = auths.get(key) if isinstance(auths, dict) else None
        if isinstance(entry, dict) and isinstance(entry.get("auth"), str):
            if entry.get("identitytoken"):
                raise UnsureError(f"{registry.authfile} has an identity token for {registry.host}")
            return _checked_base64(entry["auth"], registry.authfile)
    return None


def _auth_keys(host: str) -> tuple[str, ...]:
    hub = ("https://index.docker.io/v1/", "index.docker.io") if host == "docker.io" else ()
    return (host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/", *hub)


def _read_json(path: Path) -> dict[str, object]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UnsureError(f"{path} cannot be read: {error}") from error
    return document if isinstance(document, dict) else {}


def _checked_base64(text: str, path: Path) -> str:
    try:
        base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UnsureError(f"{path}: an auth entry is not base64") from error
    return text
