"""Flags, environment and the configuration file -> Config. Every problem of the file is reported at once.

What the user's environment should mean for registries outside (proxies, certificates, credentials) is read here, from
the `environ` that is passed in, and handed on as values.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regwrap.config.file import (
    Section,
    a_mapping,
    collected,
    is_there,
    parsed_path,
    read_file,
    seconds_from,
)
from regwrap.config.locations import location_of, parse_mirror, parse_url, registry_of
from regwrap.core.errors import UsageError, usage_error
from regwrap.core.fields import a_switch, a_text, an_integer, list_of, of_kind, shown
from regwrap.core.location import Engine, Location, Mirror, Timeouts
from regwrap.core.model import ParseError, Platform, is_repository
from regwrap.core.signed_rule import SignedRule
from regwrap.lists.imagelist import HOST_IS_DROPPED, Rewrite
from regwrap.tools.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from regwrap.lists.rules import ImageRule

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_an_engine: Final = of_kind(f"one of {', '.join(Engine)}", str, fits=lambda text: text in set(Engine))
_number_of_jobs: Final = an_integer(1, 64)
_FOR_HELPERS: Final = re.compile(
    "HOME|PATH|USER|LOGNAME|DBUS_SESSION_BUS_ADDRESS|GPG_TTY|GNUPGHOME|(XDG|AWS|GOOGLE|CLOUDSDK|AZURE|DOCKER|PASSWORD_STORE)_.*"
)
_OUTAGE_SECONDS: Final = 300
_BUDGET: Final = ("max_connections", "requests_per_second")
_LOCATION_KEYS: Final = (
    *("url", "storage", "authfile", "tls_verify", "cert_dir", "immutable", "mirrors", "partial_indexes"),
    *_BUDGET,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a run works with. `environment` is for skopeo and HTTP, `helper_environment` for credential helpers;
    `registries` are in the file's order; `scratch` is where large temporary files go, `signers` who
    may sign bundles."""

    path: Path | None
    registries: tuple[Location, ...]
    source: Location | None
    archive: Location
    scratch: Path | None
    jobs: int
    engine: Engine
    retry: RetryPolicy
    timeouts: Timeouts
    rewrite: Rewrite
    rules: tuple[ImageRule, ...]
    default_authfile: Path | None
    environment: tuple[tuple[str, str], ...]
    helper_environment: tuple[tuple[str, str], ...]
    signers: Path | None
    signed: tuple[SignedRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The options of the command line that stand above the configuration; None where they were not given."""

    config: Path | None = None
    source: str | None = None
    archive: str | None = None
    jobs: int | None = None
    engine: str | None = None
    upper: str | None = None


def _a_location(value: object, section: Section, plain: Config) -> Location:
    return location_of(a_text(value), plain, base=section.base, home=section.home)


def _a_path(value: object, section: Section, _plain: Config) -> Path:
    return parsed_path(a_text(value), section.base, section.home)


def _jobs(value: object, _section: Section, _plain: Config) -> int:
    return _number_of_jobs(value)


def _engine(value: object, _section: Section, _plain: Config) -> Engine:
    return Engine(_an_engine(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A key of the file that a flag and a variable can override. `flag` is its name in Flags; `is_number`: a variable's
    text means a number."""

    key: str
    flag: str
    variable: str
    parse: Callable[[object, Section, Config], object]
    default: object = None
    is_number: bool = False


SETTINGS: Final = (
    Setting(key="source", flag="source", variable="REGWRAP_SOURCE", parse=_a_location),
    Setting(key="archive", flag="archive", variable="REGWRAP_ARCHIVE", parse=_a_location),
    Setting(key="scratch", flag="upper", variable="REGWRAP_SCRATCH", parse=_a_path),
    Setting(key="jobs", flag="jobs", variable="REGWRAP_JOBS", parse=_jobs, default=8, is_number=True),
    Setting(key="engine", flag="engine", variable="REGWRAP_ENGINE", parse=_engine, default=Engine.AUTO),
)
KEYS: Final = (
    "registries",
    *(setting.key for setting in SETTINGS),
    "immutable",
    "rewrite",
    "images",
    "retry",
    "timeouts",
    "signers",
    "signed",
)


def load_config(flags: Flags, *, environ: Mapping[str, str], cwd: Path) -> Config:
    """Flags over environment over file over defaults. Raises UsageError with a line for each problem."""
    home = Path(environ.get("HOME") or Path.home())
    file = _find_file(flags, environ, cwd, home)
    values = read_file(file) if file else {}
    root = Section(where=f"{file}: ", base=file.parent if file else cwd, home=home, values=values, problems=[])
    root.expect_keys(KEYS)
    authfile = _default_authfile(environ, home)
    embedded = _xdg(environ, "XDG_DATA_HOME", home / ".local/share") / "regwrap/archive"
    plain = Config(
        path=file,
        registries=_read_registries(root, authfile),
        retry=_read_retry(root.section("retry")),
        timeouts=_read_timeouts(root.section("timeouts")),
        rewrite=_read_rewrite(root.section("rewrite")),
        rules=_read_rules(root),
        default_authfile=authfile,
        environment=_outside_environment(environ),
        helper_environment=_helper_environment(environ),
        signed=_read_signed(root),
        signers=root.path("signers", Path.is_file, "file"),
        **_defaults(embedded),
    )
    chosen: dict[str, Any] = {
        setting.key: _chosen(setting, plain, flags, root, environ=environ, cwd=cwd) for setting in SETTINGS
    }
    immutable = root.get("immutable", _patterns, ())
    if root.problems:
        raise usage_error(f"{file or 'the configuration'}", root.problems)
    chosen["archive"] = replace(chosen["archive"], immutable=(*chosen["archive"].immutable, *immutable))
    return replace(plain, **chosen)


def _defaults(embedded: Path) -> dict[str, Any]:
    return {
        **{setting.key: setting.default for setting in SETTINGS},
        "archive": Location(name="archive", storage=embedded),
    }


def _chosen(
    setting: Setting, plain: Config, flags: Flags, root: Section, *, environ: Mapping[str, str], cwd: Path
) -> object:
    """The precedence, in this one place. The file is checked even where it does not count."""
    default = getattr(plain, setting.key)
    in_file = root.get(setting.key, lambda value: setting.parse(value, root, plain), default)
    flag, variable = getattr(flags, setting.flag), environ.get(setting.variable)
    if flag is None and not variable:
        return in_file
    typed = replace(root, base=cwd)
    value = _variable(setting, variable or "") if flag is None else flag
    origin = setting.variable if flag is None else f"--{setting.flag}"
    return collected(root.problems, origin, value, lambda value: setting.parse(value, typed, plain), default)


def _variable(setting: Setting, text: str) -> object:
    return int(text) if setting.is_number and re.fullmatch(r"[0-9]{1,9}", text) else text


def _find_file(flags: Flags, environ: Mapping[str, str], cwd: Path, home: Path) -> Path | None:
    if given := flags.config or environ.get("REGWRAP_CONFIG"):
        path, origin = parsed_path(os.fspath(given), cwd, home), "--config" if flags.config else "REGWRAP_CONFIG"
        try:
            there = path.exists()
        except OSError as error:
            raise UsageError(f"{origin}: the configuration {path} cannot be checked: {error.strerror}") from error
        if not there:
            raise UsageError(f"{origin}: the configuration {path} does not exist")
        return path
    candidates = (cwd / "regwrap.yaml", _xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "regwrap/config.yaml")
    return next((path for path in candidates if is_there(path, Path.exists)), None)


def _read_registries(root: Section, authfile: Path | None) -> tuple[Location, ...]:
    section = root.section("registries")
    names = [name for name in section.values if isinstance(name, str) and _NAME.fullmatch(name)]
    for name in section.values:
        if name not in names:
            what = "expected a name of letters, digits, . _ or -"
            root.problems.append(f"{root.where}registries: {what}, got {shown(name)}")
    return tuple(_read_location(name, section.section(name), authfile) for name in names)


def _read_location(name: str, section: Section, authfile: Path | None) -> Location:
    section.expect_keys(_LOCATION_KEYS)
    scheme, host = section.get("url", parse_url, ("", ""))
    storage = section.path("storage")
    tls_verify = section.get("tls_verify", a_switch, None)
    own_authfile = section.path("authfile", Path.is_file, "file")
    cert_dir = section.path("cert_dir", Path.is_dir, "directory")
    nothing = section.values.get("url") is None and section.values.get("storage") is None
    if nothing and not any(line.startswith(f"{section.where[:-1]}: ") for line in section.problems):
        section.problems.append(f"{section.where[:-1]}: needs a url or a storage")
    if scheme == "http" and tls_verify:
        section.problems.append(f"{section.where}tls_verify: true cannot be combined with an http:// url")
    registry = replace(
        registry_of(scheme, host, tls_verify=tls_verify, authfile=own_authfile or authfile, cert_dir=cert_dir),
        max_connections=section.get("max_connections", an_integer(1, 1000), None),
        requests_per_second=section.get("requests_per_second", _pace, None),
        partial_indexes=section.get("partial_indexes", a_switch, None),
    )
    immutable = section.get("immutable", _patterns, ())
    mirrors = section.get("mirrors", _mirrors, ())
    return Location(
        name=name, registry=registry if host else None, storage=storage, immutable=immutable, mirrors=mirrors
    )


def _mirrors(value: object) -> tuple[Mirror, ...]:
    return tuple(map(parse_mirror, _list_of_mirrors(value)))


def _read_retry(section: Section) -> RetryPolicy:
    section.expect_keys(("attempts", "wait", "max_wait", "outage"))
    return RetryPolicy(
        attempts=section.get("attempts", an_integer(1, 20), RetryPolicy().attempts),
        wait=section.get("wait", seconds_from(0), RetryPolicy().wait),
        max_wait=section.get("max_wait", seconds_from(0), RetryPolicy().max_wait),
        outage=section.get("outage", seconds_from(0), _OUTAGE_SECONDS),
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
    newest = section.get("newest", an_integer(1, 100_000), None)
    platforms = section.get("platform", _platforms, ())
    if not match and len(root.problems) == known:
        root.problems.append(f"{where}.match: missing; expected [HOST/]REPOSITORY[:TAG] with *")
    if len(root.problems) > known:
        return None
    try:
        return make_rule(match, semver=semver, newest=newest, platforms=platforms)
    except ParseError as error:
        root.problems.append(f"{where}: {error}")
        return None


def _read_signed(root: Section) -> tuple[SignedRule, ...]:
    items = root.get("signed", _list, [])
    rules = (_read_signed_rule(root, f"{root.where}signed[{number}]", item) for number, item in enumerate(items, 1))
    return tuple(rule for rule in rules if rule is not None)


def _read_signed_rule(root: Section, where: str, item: object) -> SignedRule | None:
    known = len(root.problems)
    section = replace(root, where=f"{where}.", values=collected(root.problems, where, item, a_mapping, {}))
    section.expect_keys(("match", "keys"))
    match, keys = section.get("match", a_text, ""), section.get("keys", list_of(a_text), ())
    if not (match and keys) and len(root.problems) == known:
        root.problems.append(f"{where}: expected match (a repository, with * and ?) and keys (files)")
    if len(root.problems) > known:
        return None
    return SignedRule(match, tuple(parsed_path(key, section.base, section.home) for key in keys))


def _patterns(value: object) -> tuple[str, ...]:
    return tuple(f"{item}" for item in _tag_patterns(value))


def _platforms(value: object) -> tuple[Platform, ...]:
    return tuple(sorted({Platform.parse(part) for part in a_text(value).split(",")}))


_tag_patterns: Final = of_kind(
    "a list of patterns for tags, such as [v*]",
    list,
    fits=lambda items: all(isinstance(item, str) and item.strip() for item in items),
)
_list_of_mirrors: Final = of_kind("a list of HOST[:PORT][/PREFIX]", list)
_list: Final = of_kind("a list (- match: …)", list)
_prefix: Final = of_kind(
    "a path with a slash at its end, such as mirror/",
    str,
    fits=lambda text: text[-1:] == "/" and is_repository(text[:-1]),
)
_pace: Final = of_kind("a number from 0.01 to 10000", int, float, fits=lambda number: 0.01 <= number <= 10000)


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


def _helper_environment(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What credential helpers look for: the user's home, the clouds' variables, the keyrings'."""
    return tuple(sorted((key, value) for key, value in environ.items() if _FOR_HELPERS.fullmatch(key)))
