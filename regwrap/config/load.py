"""Flags, environment and the configuration file -> Config. Every problem of the file is reported at once.

What the user's environment should mean for registries outside (proxies, certificates, credentials) is read here, from
the `environ` that is passed in, and handed on as values.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.config.file import (
    D,
    Section,
    T,
    a_mapping,
    a_switch,
    a_text,
    advice,
    collected,
    int_in,
    is_there,
    parsed_path,
    parser_of,
    read_file,
    seconds_from,
    shown,
)
from regwrap.core.errors import UsageError
from regwrap.core.model import LayoutRef, ParseError, Platform, is_host, is_repository
from regwrap.core.place import Engine, Place, Registry, Timeouts
from regwrap.lists.imagelist import HOST_IS_DROPPED, Rewrite
from regwrap.tools.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from regwrap.lists.rules import ImageRule

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Docker's rule for registries that are insecure by nature.
_LOOPBACK: Final = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]+)?")
_KEYS: Final = (
    "registries", "source", "archive", "scratch", "jobs", "engine", "rewrite", "images", "retry", "timeouts"
)  # fmt: skip
_an_engine: Final = parser_of((str,), f"one of {', '.join(Engine)}", lambda text: text in set(Engine))
_BUDGET: Final = ("max_connections", "requests_per_second")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a run works with. `environment` is for skopeo and HTTP; `registries` are in the file's order; `scratch` is
    where large temporary files go."""

    path: Path | None
    registries: tuple[Place, ...]
    source: Place | None
    archive: Place
    scratch: Path | None
    jobs: int
    engine: Engine
    retry: RetryPolicy
    timeouts: Timeouts
    rewrite: Rewrite
    rules: tuple[ImageRule, ...]
    default_authfile: Path | None
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The options of the command line that stand above the configuration; None where they were not given."""

    config: Path | None = None
    source: str | None = None
    archive: str | None = None
    jobs: int | None = None
    engine: str | None = None
    upper: Path | None = None


def load_config(flags: Flags, *, environ: Mapping[str, str], cwd: Path) -> Config:
    """Flags over environment over file over defaults. Raises UsageError with a line for each problem."""
    home = Path(environ.get("HOME") or Path.home())
    file = _find_file(flags, environ, cwd, home)
    values = read_file(file) if file else {}
    root = Section(where=f"{file}: ", base=file.parent if file else cwd, home=home, values=values, problems=[])
    root.expect_keys(
        ("registries", "source", "archive", "scratch", "jobs", "engine", "rewrite", "images", "retry", "timeouts")
    )
    authfile = _default_authfile(environ, home)
    archive = _xdg(environ, "XDG_DATA_HOME", home / ".local/share") / "regwrap/archive"
    plain = Config(
        path=file,
        registries=_read_registries(root, authfile),
        source=None,
        archive=Place(name="archive", storage=archive),
        scratch=None,
        jobs=8,
        engine=Engine.AUTO,
        retry=_read_retry(root.section("retry")),
        timeouts=_read_timeouts(root.section("timeouts")),
        rewrite=_read_rewrite(root.section("rewrite")),
        rules=_read_rules(root),
        default_authfile=authfile,
        environment=_outside_environment(environ),
    )
    config = _with_choices(plain, flags, root, environ=environ, cwd=cwd)
    if root.problems:
        raise UsageError("\n".join(root.problems))
    return config


def registry_for(config: Config, host: str) -> Registry:
    """How to reach `host`: as it is configured (the first entry counts), else with Docker's defaults."""
    configured = (place.registry for place in config.registries if place.registry and place.registry.host == host)
    return next(configured, None) or _registry("", host, authfile=config.default_authfile)


def place_of(text: str, config: Config, *, base: Path, home: Path) -> Place:
    """What a user means by NAME, DIR (relative to `base`) or HOST[:PORT], in this order. Raises UsageError.

    A host that is configured is the configured place, with its storage: one registry, however it is named.
    """
    named = {place.name: place for place in config.registries}
    if text in named:
        return named[text]
    if text.startswith("oci:"):
        return Place(name=text, image=_layout(text, base, home))
    if "://" in text:
        return _place_of_url(text, config)
    if text.startswith((".", "/", "~")) or "/" in text or (text and is_there(base / text, Path.is_dir)):
        return Place(name=text, storage=parsed_path(text, base, home))
    if "@" in text or (is_host(text) and ("." in text or ":" in text or text == "localhost")):
        return _place_of_url(text, config)
    known = f"; {advice(text, named)}" if named else ""
    raise UsageError(f"{shown(text)} is neither a configured registry, nor a host, nor a directory{known}")


def push_place(text: str, config: Config) -> tuple[Registry, str]:
    """The registry and the prefix of `NAME[/PREFIX]` or `[http://]HOST[:PORT][/PREFIX]`. Raises UsageError."""
    scheme, separator, rest = text.rpartition("://")
    name, _, prefix = rest.partition("/")
    prefix = _checked_prefix(prefix)
    named = {place.name: place for place in config.registries}
    if separator or name not in named:
        if not separator and not ("." in name or ":" in name or name == "localhost"):
            known = f"; {advice(name, named)}" if named else ""
            raise UsageError(f"{shown(name)} is neither a configured registry nor a host{known}")
        place = _place_of_url(f"{scheme}{separator}{name}", config)
    else:
        place = named[name]
    if place.registry is None:
        raise UsageError(f"{name} is a storage directory without a registry", hint="regwrap deploy merges into one")
    return place.registry, prefix


def listed_place(text: str, config: Config, *, base: Path, home: Path) -> tuple[Place, str]:
    """The place and the prefix of `NAME[/PREFIX]`, `DIR` or `[http://]HOST[:PORT][/PREFIX]`. Raises UsageError."""
    name, _, prefix = text.partition("/")
    place = next((place for place in config.registries if place.name == name), None)
    if place is None and (text.startswith((".", "/", "~")) or is_there(base / text, Path.is_dir)):
        return place_of(text, config, base=base, home=home), ""
    if place is None:
        registry, prefix = push_place(text, config)
        return Place(name=registry.host, registry=registry), prefix
    return place, _checked_prefix(prefix)


def _checked_prefix(text: str) -> str:
    prefix = text.rstrip("/")
    if prefix and not is_repository(prefix):
        raise UsageError(f"{shown(prefix)} can't stand in front of a repository's name: lower case, parts with /")
    return prefix


def _layout(text: str, base: Path, home: Path) -> LayoutRef:
    try:
        ref = LayoutRef.parse(text)
        return LayoutRef.parse(f"{replace(ref, directory=os.fspath(parsed_path(ref.directory, base, home)))}")
    except ParseError as error:
        raise UsageError(f"{error}") from error


def _place_of_url(url: str, config: Config) -> Place:
    """The place of a host; http:// or https:// in front of it counts more than what is configured."""
    scheme, host = parse_url(url)
    registry, is_http = registry_for(config, host), scheme == "http"
    place = next((p for p in config.registries if p.registry == registry), Place(name=host, registry=registry))
    if scheme and registry.plain_http != is_http:
        return replace(place, registry=replace(registry, plain_http=is_http, tls_verify=not is_http))
    return place


def _with_choices(plain: Config, flags: Flags, root: Section, *, environ: Mapping[str, str], cwd: Path) -> Config:
    def chosen(key: str, flag: object, variable: object, parse: Callable[[object, Path], T], default: D) -> T | D:
        """The precedence, in this one place. The file is checked even where it does not count."""
        in_file = root.get(key, lambda value: parse(value, root.base), default)
        if flag is None and variable in (None, ""):
            return in_file
        option = "--upper" if key == "scratch" else f"--{key}"
        value, origin = (variable, f"REGWRAP_{key.upper()}") if flag is None else (flag, option)
        return collected(root.problems, origin, value, lambda value: parse(value, cwd), default)

    def place(value: object, base: Path) -> Place:
        return place_of(a_text(value), plain, base=base, home=root.home)

    jobs = environ.get("REGWRAP_JOBS", "")
    number = int(jobs) if re.fullmatch(r"[0-9]{1,9}", jobs) else jobs
    return replace(
        plain,
        source=chosen("source", flags.source, environ.get("REGWRAP_SOURCE"), place, plain.source),
        archive=chosen("archive", flags.archive, environ.get("REGWRAP_ARCHIVE"), place, plain.archive),
        scratch=chosen(
            "scratch",
            None if flags.upper is None else os.fspath(flags.upper),
            environ.get("REGWRAP_SCRATCH"),
            lambda value, base: parsed_path(a_text(value), base, root.home),
            None,
        ),
        jobs=chosen("jobs", flags.jobs, number, lambda value, _base: int_in(1, 64)(value), plain.jobs),
        engine=chosen(
            "engine",
            flags.engine,
            environ.get("REGWRAP_ENGINE"),
            lambda value, _base: Engine(_an_engine(value)),
            plain.engine,
        ),
    )


def _find_file(flags: Flags, environ: Mapping[str, str], cwd: Path, home: Path) -> Path | None:
    if given := flags.config or environ.get("REGWRAP_CONFIG"):
        path, origin = parsed_path(os.fspath(given), cwd, home), "--config" if flags.config else "REGWRAP_CONFIG"
        try:
            there = path.exists()
        except OSError as error:
            raise UsageError(f"{origin}: the configuration {path} can't be looked at: {error.strerror}") from error
        if not there:
            raise UsageError(f"{origin}: the configuration {path} does not exist")
        return path
    candidates = (cwd / "regwrap.yaml", _xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "regwrap/config.yaml")
    return next((path for path in candidates if is_there(path, Path.exists)), None)


def _read_registries(root: Section, authfile: Path | None) -> tuple[Place, ...]:
    section = root.section("registries")
    names = [name for name in section.values if isinstance(name, str) and _NAME.fullmatch(name)]
    for name in section.values:
        if name not in names:
            what = "expected a name of letters, digits, . _ or -"
            root.problems.append(f"{root.where}registries: {what}, got {shown(name)}")
    return tuple(_read_place(name, section.section(name), authfile) for name in names)


def _read_place(name: str, section: Section, authfile: Path | None) -> Place:
    section.expect_keys(("url", "storage", "authfile", "tls_verify", "cert_dir", *_BUDGET))
    scheme, host = section.get("url", parse_url, ("", ""))
    storage = section.path("storage")
    tls_verify = section.get("tls_verify", a_switch, None)
    own_authfile = section.path("authfile", Path.is_file, "file")
    cert_dir = section.path("cert_dir", Path.is_dir, "directory")
    nothing = section.values.get("url") is None and section.values.get("storage") is None
    if nothing and not any(line.startswith(f"{section.where[:-1]}: ") for line in section.problems):
        section.problems.append(f"{section.where[:-1]}: needs a url or a storage")
    if scheme == "http" and tls_verify:
        section.problems.append(f"{section.where}tls_verify: true does not go with an http:// url")
    registry = replace(
        _registry(scheme, host, tls_verify=tls_verify, authfile=own_authfile or authfile, cert_dir=cert_dir),
        max_connections=section.get("max_connections", int_in(1, 1000), None),
        requests_per_second=section.get("requests_per_second", _pace, None),
    )
    return Place(name=name, registry=registry if host else None, storage=storage)


def _read_retry(section: Section) -> RetryPolicy:
    section.expect_keys(("attempts", "wait", "max_wait"))
    return RetryPolicy(
        attempts=section.get("attempts", int_in(1, 20), RetryPolicy().attempts),
        wait=section.get("wait", seconds_from(0), RetryPolicy().wait),
        max_wait=section.get("max_wait", seconds_from(0), RetryPolicy().max_wait),
    )


def _read_timeouts(section: Section) -> Timeouts:
    section.expect_keys(("stall", "copy", "request", "lock"))
    return Timeouts(
        stall=section.get("stall", seconds_from(1), Timeouts().stall),
        copy=section.get("copy", seconds_from(1), Timeouts().copy),
        request=section.get("request", seconds_from(1), Timeouts().request),
        lock=section.get("lock", seconds_from(0), Timeouts().lock),
    )


def _read_rewrite(section: Section) -> Rewrite:
    section.expect_keys(("prefix", "keep_host"))
    return Rewrite(
        prefix=section.get("prefix", _prefix, HOST_IS_DROPPED.prefix),
        keep_host=section.get("keep_host", a_switch, HOST_IS_DROPPED.keep_host),
    )


def _read_rules(root: Section) -> tuple[ImageRule, ...]:
    items = root.get("images", _list, [])
    rules = (_read_rule(root, f"{root.where}images[{number}]", item) for number, item in enumerate(items, start=1))
    return tuple(rule for rule in rules if rule is not None)


def _read_rule(root: Section, where: str, item: object) -> ImageRule | None:
    from regwrap.lists.rules import make_rule  # most configurations have no rules

    known = len(root.problems)
    section = replace(root, where=f"{where}.", values=collected(root.problems, where, item, a_mapping, {}))
    section.expect_keys(("match", "semver", "newest", "platform"))
    match = section.get("match", a_text, "")
    semver = section.get("semver", a_text, None)
    newest = section.get("newest", int_in(1, 100_000), None)
    platforms = section.get("platform", _platforms, ())
    if not match and len(root.problems) == known:
        root.problems.append(f"{where}.match: is missing; it is [HOST/]REPOSITORY[:TAG] with * in it")
    if len(root.problems) > known:
        return None
    try:
        return make_rule(match, semver=semver, newest=newest, platforms=platforms)
    except ParseError as error:
        root.problems.append(f"{where}: {error}")
        return None


def _platforms(value: object) -> tuple[Platform, ...]:
    try:
        return tuple(sorted({Platform.parse(part) for part in a_text(value).split(",")}))
    except ParseError as error:
        raise UsageError(str(error)) from error


_list: Final = parser_of((list,), "a list (- match: …)")
_prefix: Final = parser_of(
    (str,),
    "a path with a slash at its end, such as mirror/",
    lambda text: text[-1:] == "/" and is_repository(text[:-1]),
)


_pace: Final = parser_of((int, float), "a number from 0.01 to 10000", lambda number: 0.01 <= number <= 10000)


def parse_url(value: object) -> tuple[str, str]:
    """`[http://|https://|docker://]HOST[:PORT]` as scheme (empty where TLS is left open) and host."""
    url = a_text(value)
    if "@" in url:  # and the url is not shown: errors end up in logs
        raise UsageError("credentials do not belong here; put them in an authfile (skopeo login)")
    scheme, separator, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    if separator and scheme.lower() not in {"http", "https", "docker"}:
        raise UsageError(f"expected https:// or http:// or neither, got {shown(url)}")
    if slash and path:
        raise UsageError(f"expected HOST[:PORT] without a path, got {shown(url)}")
    if not is_host(host):
        raise UsageError(f"expected HOST[:PORT], got {shown(url)}")
    return scheme.lower().replace("docker", ""), host


def _registry(
    scheme: str, host: str, *, authfile: Path | None, tls_verify: bool | None = None, cert_dir: Path | None = None
) -> Registry:
    plain_http = scheme == "http" or (not scheme and not tls_verify and _LOOPBACK.fullmatch(host) is not None)
    verify = not plain_http if tls_verify is None else tls_verify
    return Registry(host=host, tls_verify=verify, plain_http=plain_http, authfile=authfile, cert_dir=cert_dir)


def _xdg(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    """XDG Base Directory Specification: a relative path there is invalid and is ignored."""
    path = Path(environ.get(variable, ""))
    return path if path.is_absolute() else default


def _default_authfile(environ: Mapping[str, str], home: Path) -> Path | None:
    """The first that exists, in the order of containers-auth.json(5)."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    candidates = (
        Path(environ.get("REGISTRY_AUTH_FILE") or "/nonexistent"),
        Path(runtime, "containers/auth.json") if runtime else Path(f"/run/containers/{os.getuid()}/auth.json"),
        _xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "containers/auth.json",
        Path(environ.get("DOCKER_CONFIG") or home / ".docker", "config.json"),
    )
    return next((path for path in candidates if is_there(path, Path.is_file)), None)


def _outside_environment(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Proxies in upper or lower case (upper wins, as in Go) and CAs, only where they are set.

    Behind a proxy the loopback stays direct, where regwrap's own registries listen. Configured registries are not
    added: whether they are behind the proxy is the user's to say.
    """
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    found = {key: environ.get(key) or environ.get(key.lower()) or "" for key in proxies}
    if found["HTTP_PROXY"] or found["HTTPS_PROXY"]:
        entries = (*found["NO_PROXY"].split(","), "127.0.0.1", "localhost", "::1")
        found["NO_PROXY"] = ",".join(dict.fromkeys(entry.strip() for entry in entries if entry.strip()))
    found |= {key: environ.get(key, "") for key in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    return tuple((key, value) for key, value in found.items() if value)
