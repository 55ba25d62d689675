"""What the user's and the machine's configuration of skopeo and docker means for registries outside: found, and told.

The rule (docs/decisions/32): skopeo gets what regwrap's configuration says, so that a run does the same on every
machine. Here is only looked at what a user may have set up and expect to count; values are never shown, they may be
secret.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.core.bounded import read_bounded
from regwrap.core.errors import UsageError
from regwrap.core.fields import json_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_BYTES: Final = 1024 * 1024
_INSTEAD: Final = {
    # keys of a [[registry]] of containers-registries.conf(5)
    "location": "regwrap.yaml: url of the registry",
    "mirror": "regwrap.yaml: url of the mirror; or name it in the list",
    "insecure": "regwrap.yaml: tls_verify: false",
    "blocked": "leave the registry out of the list",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`what` was found, whether it `counts` for regwrap, in what way; and what to do where it does not."""

    what: str
    counts: bool
    means: str
    instead: str = ""


def look_outside(
    environment: tuple[tuple[str, str], ...], authfile: Path | None, *, home: Path, etc: Path
) -> tuple[Finding, ...]:
    """`environment` and `authfile` are those that skopeo is given; the others are found below `home` and `etc`."""
    return (
        *(_variable(name) for name, value in environment if value),
        *_credentials(authfile, home),
        *_registries(home / ".config/containers", machine=False),
        *_registries(etc / "containers", machine=True),
        *_certificates(home, etc),
        *_policies(home / ".config/containers", etc / "containers"),
    )


def _variable(name: str) -> Finding:
    what = "a proxy" if name.endswith("PROXY") else "certificates"
    more = ", with the loopback added" if name == "NO_PROXY" else ""
    return Finding(what=f"${name}", counts=True, means=f"{what} for skopeo and for regwrap's own requests{more}")


def _credentials(authfile: Path | None, home: Path) -> Iterator[Finding]:
    if authfile:
        document = _json(authfile)
        hosts = sorted(_keys(document, "auths"))
        means = f"credentials for {', '.join(hosts)}" if hosts else "no credentials in it"
        yield Finding(what=f"{authfile}", counts=True, means=means)
        helpers = _keys(document, "credHelpers")
        if helpers or document.get("credsStore"):
            yield Finding(
                what=f"credential helpers in {authfile}",
                counts=True,
                means=f"asked for {', '.join(sorted(helpers)) or 'every registry'}, by regwrap and by skopeo",
            )
    for other in (home / ".config/containers/auth.json", home / ".docker/config.json"):
        if _is_file(other) and other != authfile:
            yield Finding(
                what=f"{other}",
                counts=False,
                means=f"only the first file counts, {authfile}" if authfile else "cannot be read",
                instead="regwrap.yaml: authfile of the registry",
            )


def _registries(directory: Path, *, machine: bool) -> Iterator[Finding]:
    for file in (directory / "registries.conf", *_listed(directory / "registries.conf.d", "*.conf")):
        yield from _registries_in(file, machine=machine)


def _registries_in(file: Path, *, machine: bool) -> Iterator[Finding]:
    if not _is_file(file):
        return
    try:
        document = tomllib.loads(read_bounded(file, _MAX_BYTES).decode())
    except (OSError, ValueError, RecursionError, UsageError):
        yield Finding(what=f"{file}", counts=False, means="cannot be read; regwrap does not need it")
        return
    entries = document.get("registry", [])
    for entry in (entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ():
        name = entry.get("prefix") or entry.get("location")
        for key, instead in _INSTEAD.items():
            if entry.get(key) and (key != "location" or entry.get("prefix", entry[key]) != entry[key]):
                # skopeo always reads the machine's registries.conf.d; regwrap's entry wins only if its prefix is longer
                counts = machine and file.parent.name == "registries.conf.d" and "/" in f"{name}"
                means = f"counts, for the repository {name} alone" if counts else "has no effect"
                yield Finding(what=f"{key} of {name} in {file}", counts=counts, means=means, instead=instead)
    if document.get("unqualified-search-registries"):
        means = "has no effect; lines without a host come from the source"
        instead = "regwrap.yaml: source, or --source"
        yield Finding(what=f"search registries in {file}", counts=False, means=means, instead=instead)


def _certificates(home: Path, etc: Path) -> Iterator[Finding]:
    for directory in _listed(home / ".config/containers/certs.d", "*"):
        means, instead = "has no effect", f"regwrap.yaml: cert_dir: {directory}"
        yield Finding(what=f"{directory}", counts=False, means=means, instead=instead)
    for parent in (etc / "containers/certs.d", etc / "docker/certs.d"):
        for directory in _listed(parent, "*"):
            means = f"certificates for {directory.name}, on this machine; cert_dir goes with the configuration"
            yield Finding(what=f"{directory}", counts=True, means=means)


def _policies(*directories: Path) -> Iterator[Finding]:
    means = "has no effect: what was signed, and by whom, is checked by nobody here"
    for file in (directory / "policy.json" for directory in directories):
        if _is_file(file) and _json(file).get("default") != [{"type": "insecureAcceptAnything"}]:
            yield Finding(what=f"{file}", counts=False, means=means, instead="check signatures before the list is made")


def _listed(directory: Path, pattern: str) -> list[Path]:
    try:
        return sorted(directory.glob(pattern))
    except OSError:
        return []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no permission to look
        return False


def _json(path: Path) -> dict[str, object]:
    try:
        return json_object(read_bounded(path, _MAX_BYTES))
    except (OSError, ValueError, UsageError):
        return {}


def _keys(document: dict[str, object], name: str) -> list[str]:
    value = document.get(name)
    return [str(key) for key in value] if isinstance(value, dict) else []
