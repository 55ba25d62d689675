"""What a user means by a name, a directory or a host: a place where images come from, or go to."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.config.file import advice, is_there, parsed_path
from regwrap.core.errors import UsageError
from regwrap.core.fields import a_text, shown
from regwrap.core.hosts import normal_host
from regwrap.core.location import Location, Mirror, Registry
from regwrap.core.model import LayoutRef, ParseError, is_host, is_repository

if TYPE_CHECKING:
    from regwrap.config.load import Config

_LOOPBACK: Final = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]+)?")


def registry_for(config: Config, host: str) -> Registry:
    """How to reach `host`: as it is configured (the first entry counts), else with Docker's defaults."""
    location = configured_location(config, host)
    known = location.registry if location else None
    return known or registry_of("", normal_host(host), authfile=config.default_authfile)


def configured_location(config: Config, host: str) -> Location | None:
    """The first configured place with that registry."""
    name = normal_host(host)

    def is_named(registry: Registry) -> bool:
        return name == registry.host or (registry.plain_http and name == f"{registry.host}:80")

    return next((location for location in config.registries if location.registry and is_named(location.registry)), None)


def location_of(text: str, config: Config, *, base: Path, home: Path) -> Location:
    """What a user means by NAME, DIR (relative to `base`) or HOST[:PORT], in this order. Raises UsageError.

    A host that is configured is the configured place, with its storage: one registry, however it is named.
    """
    named = {location.name: location for location in config.registries}
    if text in named:
        return named[text]
    if text.startswith("oci:"):
        return Location(name=text, image=_layout(text, base, home))
    if "://" in text:
        return _location_of_url(text, config)
    if text.startswith((".", "/", "~")) or "/" in text or (text and is_there(base / text, Path.is_dir)):
        return Location(name=text, storage=parsed_path(text, base, home))
    if "@" in text or (is_host(text) and ("." in text or ":" in text or text == "localhost")):
        return _location_of_url(text, config)
    known = f"; {advice(text, named)}" if named else ""
    new = f" (./{text} is a new one)" if text.isprintable() and text else ""
    raise UsageError(
        f"{shown(text)} is neither a configured registry, nor a host, nor a directory that is there{new}{known}"
    )


def push_location(text: str, config: Config) -> tuple[Location, str]:
    """The registry's place, and the prefix of `NAME[/PREFIX]` or `[http://]HOST[:PORT][/PREFIX]`. Raises UsageError."""
    scheme, separator, rest = text.rpartition("://")
    name, _, prefix = rest.partition("/")
    prefix = _checked_prefix(prefix)
    named = {location.name: location for location in config.registries}
    if separator or name not in named:
        if not separator and not ("." in name or ":" in name or name == "localhost"):
            known = f"; {advice(name, named)}" if named else ""
            raise UsageError(f"{shown(name)} is neither a configured registry nor a host{known}")
        location = _location_of_url(f"{scheme}{separator}{name}", config)
    else:
        location = named[name]
    if location.registry is None:
        raise UsageError(
            f"{name} is a storage directory without a registry", hint="use regwrap deploy for a storage directory"
        )
    return location, prefix


def listed_location(text: str, config: Config, *, base: Path, home: Path) -> tuple[Location, str]:
    """The place and the prefix of `NAME[/PREFIX]`, `DIR` or `[http://]HOST[:PORT][/PREFIX]`. Raises UsageError."""
    name, _, prefix = text.partition("/")
    location = next((location for location in config.registries if location.name == name), None)
    if location is None and (text.startswith((".", "/", "~")) or is_there(base / text, Path.is_dir)):
        return location_of(text, config, base=base, home=home), ""
    if location is None:
        location, prefix = push_location(text, config)
        return replace(location, storage=None), prefix
    return location, _checked_prefix(prefix)


def _checked_prefix(text: str) -> str:
    prefix = text.rstrip("/")
    if prefix and not is_repository(prefix):
        raise UsageError(f"{shown(prefix)} cannot prefix a repository's name: lower case, parts with /")
    return prefix


def _layout(text: str, base: Path, home: Path) -> LayoutRef:
    try:
        ref = LayoutRef.parse(text)
        return LayoutRef.parse(f"{replace(ref, directory=os.fspath(parsed_path(ref.directory, base, home)))}")
    except ParseError as error:
        raise UsageError(f"{error}") from error


def _location_of_url(url: str, config: Config) -> Location:
    """The place of a host; http:// or https:// in front of it counts more than what is configured."""
    scheme, host = parse_url(url)
    location = configured_location(config, host)
    if location is None or location.registry is None:
        return Location(name=host, registry=registry_of(scheme, host, authfile=config.default_authfile))
    is_http = scheme == "http"
    if scheme and location.registry.plain_http != is_http:
        return replace(location, registry=replace(location.registry, plain_http=is_http, tls_verify=not is_http))
    return location


def parse_url(value: object) -> tuple[str, str]:
    """`[http://|https://|docker://]HOST[:PORT]` as scheme (empty where TLS is left open) and host."""
    url = a_text(value)
    if "@" in url:  # and the url is not shown: errors end up in logs
        raise UsageError("credentials are not allowed here; put them in an authfile (skopeo login)")
    scheme, separator, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    if separator and scheme.lower() not in {"http", "https", "docker"}:
        raise UsageError(f"expected https://, http:// or no scheme, got {shown(url)}")
    if slash and path:
        raise UsageError(f"expected HOST[:PORT] without a path, got {shown(url)}")
    if not is_host(host):
        raise UsageError(f"expected HOST[:PORT], got {shown(url)}")
    scheme = scheme.lower().replace("docker", "")
    return scheme, normal_host(host).removesuffix(":80" if scheme == "http" else "")


def parse_mirror(value: object) -> Mirror:
    """`HOST[:PORT][/PREFIX]`. How the host is reached is its own entry's to say."""
    text = a_text(value)
    host, _, prefix = text.rstrip("/").partition("/")
    if not is_host(host) or (prefix and not is_repository(prefix)):
        raise UsageError(f"expected HOST[:PORT][/PREFIX], got {shown(text)}")
    return Mirror(host=normal_host(host), prefix=prefix)


def registry_of(
    scheme: str, host: str, *, authfile: Path | None, tls_verify: bool | None = None, cert_dir: Path | None = None
) -> Registry:
    """Loopback is insecure by nature, as docker has it: HTTPS with any certificate, and plain HTTP where that fails."""
    plain_http = scheme == "http"
    is_insecure = plain_http or (not scheme and _LOOPBACK.fullmatch(host) is not None)
    verify = not is_insecure if tls_verify is None else tls_verify
    return Registry(host=host, tls_verify=verify, plain_http=plain_http, authfile=authfile, cert_dir=cert_dir)
