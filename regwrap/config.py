"""Flags, environment and the configuration file -> Config. Every problem of the file is reported at once.

What the user's environment should mean for registries outside (proxies, certificates, credentials) is read here, from
the `environ` that is passed in, and handed on as values.
"""

import difflib
import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from regwrap.errors import UsageError
from regwrap.imagelist import HOST_IS_DROPPED, Rewrite
from regwrap.model import LayoutRef, ParseError, Platform, is_host, is_repository
from regwrap.rules import ImageRule, make_rule
from regwrap.tools.access import Place, Registry, Timeouts
from regwrap.tools.retry import RetryPolicy
from regwrap.yamldoc import parse_value

MAX_CONFIG_BYTES: Final = 1024 * 1024
_MAX_SECONDS: Final = 7 * 24 * 3600
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Docker's rule for registries that are insecure by nature.
_LOOPBACK: Final = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]+)?")
_BUDGET: Final = ("max_connections", "requests_per_second")
_KINDS: Final = {dict: "a mapping", list: "a list", bytes: "binary data", int: "a very large number"}

T = TypeVar("T")
D = TypeVar("D")


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
    upper: Path | None = None


def load_config(flags: Flags, *, environ: Mapping[str, str], cwd: Path) -> Config:
    """Flags over environment over file over defaults. Raises UsageError with a line for each problem."""
    home = Path(environ.get("HOME") or Path.home())
    file = _find_file(flags, environ, cwd, home)
    values = _read_file(file) if file else {}
    root = _Section(where=f"{file}: ", base=file.parent if file else cwd, home=home, values=values, problems=[])
    root.expect_keys(("registries", "source", "archive", "scratch", "jobs", "rewrite", "images", "retry", "timeouts"))
    authfile = _default_authfile(environ, home)
    archive = _xdg(environ, "XDG_DATA_HOME", home / ".local/share") / "regwrap/archive"
    plain = Config(
        path=file,
        registries=_read_registries(root, authfile),
        source=None,
        archive=Place(name="archive", storage=archive),
        scratch=None,
        jobs=8,
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
    if text.startswith((".", "/", "~")) or "/" in text or (text and _is_there(base / text, Path.is_dir)):
        return Place(name=text, storage=_path(text, base, home))
    if "@" in text or (is_host(text) and ("." in text or ":" in text or text == "localhost")):
        return _place_of_url(text, config)
    known = f"; {_advice(text, named)}" if named else ""
    raise UsageError(f"{_shown(text)} is neither a configured registry, nor a host, nor a directory{known}")


def push_place(text: str, config: Config) -> tuple[Registry, str]:
    """The registry and the prefix of `NAME[/PREFIX]` or `[http://]HOST[:PORT][/PREFIX]`. Raises UsageError."""
    scheme, separator, rest = text.rpartition("://")
    name, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if prefix and not is_repository(prefix):
        raise UsageError(f"{_shown(prefix)} can't stand in front of a repository's name: lower case, parts with /")
    named = {place.name: place for place in config.registries}
    if separator or name not in named:
        if not separator and not ("." in name or ":" in name or name == "localhost"):
            known = f"; {_advice(name, named)}" if named else ""
            raise UsageError(f"{_shown(name)} is neither a configured registry nor a host{known}")
        place = _place_of_url(f"{scheme}{separator}{name}", config)
    else:
        place = named[name]
    if place.registry is None:
        raise UsageError(f"{name} is a storage directory without a registry", hint="regwrap deploy merges into one")
    return place.registry, prefix


def _layout(text: str, base: Path, home: Path) -> LayoutRef:
    try:
        ref = LayoutRef.parse(text)
        return LayoutRef.parse(f"{replace(ref, directory=os.fspath(_path(ref.directory, base, home)))}")
    except ParseError as error:
        raise UsageError(f"{error}") from error


def _place_of_url(url: str, config: Config) -> Place:
    """The place of a host; http:// or https:// in front of it counts more than what is configured."""
    scheme, host = _parse_url(url)
    registry, is_http = registry_for(config, host), scheme == "http"
    place = next((p for p in config.registries if p.registry == registry), Place(name=host, registry=registry))
    if scheme and registry.plain_http != is_http:
        return replace(place, registry=replace(registry, plain_http=is_http, tls_verify=not is_http))
    return place


def _with_choices(plain: Config, flags: Flags, root: "_Section", *, environ: Mapping[str, str], cwd: Path) -> Config:
    def chosen(key: str, flag: object, variable: object, parse: Callable[[object, Path], T], default: D) -> T | D:
        """The precedence, in this one place. The file is checked even where it does not count."""
        in_file = root.get(key, lambda value: parse(value, root.base), default)
        if flag is None and variable in (None, ""):
            return in_file
        option = "--upper" if key == "scratch" else f"--{key}"
        value, origin = (variable, f"REGWRAP_{key.upper()}") if flag is None else (flag, option)
        return _collected(root.problems, origin, value, lambda value: parse(value, cwd), default)

    def place(value: object, base: Path) -> Place:
        return place_of(_text(value), plain, base=base, home=root.home)

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
            lambda value, base: _path(_text(value), base, root.home),
            None,
        ),
        jobs=chosen("jobs", flags.jobs, number, lambda value, _base: _int_in(1, 64)(value), plain.jobs),
    )


def _find_file(flags: Flags, environ: Mapping[str, str], cwd: Path, home: Path) -> Path | None:
    if given := flags.config or environ.get("REGWRAP_CONFIG"):
        path = _path(os.fspath(given), cwd, home)
        if not _is_there(path, Path.exists):
            origin = "--config" if flags.config else "REGWRAP_CONFIG"
            raise UsageError(f"{origin}: the configuration {path} does not exist")
        return path
    candidates = (cwd / "regwrap.yaml", _xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "regwrap/config.yaml")
    return next((path for path in candidates if _is_there(path, Path.exists)), None)


def _read_file(path: Path) -> dict[object, object]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise UsageError(f"{path}: larger than {MAX_CONFIG_BYTES // 1024} KiB; is this the configuration?")
    try:
        document = parse_value(data.decode(), str(path))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start + 1})") from error
    if document is not None and not isinstance(document, dict):
        raise UsageError(f"{path}: expected a mapping (key: value), got {_shown(document)}")
    return document or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """A mapping of the file, in which `where` leads to its keys. What is wrong goes to the shared `problems`."""

    where: str
    base: Path
    home: Path
    values: dict[object, object]
    problems: list[str]

    def expect_keys(self, known: Collection[str]) -> None:
        where = self.where if self.where.endswith(" ") else f"{self.where[:-1]}: "
        unknown = [_shown(key) for key in self.values if key not in known]
        self.problems.extend(f"{where}unknown key {key}; {_advice(key.strip(chr(34)), known)}" for key in unknown)

    def section(self, key: str) -> "_Section":
        return replace(self, where=f"{self.where}{key}.", values=self.get(key, _mapping, {}))

    def get(self, key: str, parse: Callable[[object], T], default: D) -> T | D:
        # A key without a value counts as not there: that remains when its children are commented out.
        return _collected(self.problems, f"{self.where}{key}", self.values.get(key), parse, default)

    def path(self, key: str, is_right: Callable[[Path], bool] | None = None, kind: str = "") -> Path | None:
        path = self.get(key, lambda value: _path(_text(value), self.base, self.home), None)
        if path is not None and is_right and not _is_there(path, is_right):
            self.problems.append(f"{self.where}{key}: the {kind} {path} does not exist")
        return path


def _collected(problems: list[str], origin: str, value: object, parse: Callable[[object], T], default: D) -> T | D:
    if value is None:
        return default
    try:
        return parse(value)
    except UsageError as error:
        problems.append(f"{origin}: {error.message}")
        return default


def _read_registries(root: _Section, authfile: Path | None) -> tuple[Place, ...]:
    section = root.section("registries")
    names = [name for name in section.values if isinstance(name, str) and _NAME.fullmatch(name)]
    for name in section.values:
        if name not in names:
            what = "expected a name of letters, digits, . _ or -"
            root.problems.append(f"{root.where}registries: {what}, got {_shown(name)}")
    return tuple(_read_place(name, section.section(name), authfile) for name in names)


def _read_place(name: str, section: _Section, authfile: Path | None) -> Place:
    section.expect_keys(("url", "storage", "authfile", "tls_verify", "cert_dir", *_BUDGET))
    scheme, host = section.get("url", _parse_url, ("", ""))
    storage = section.path("storage")
    tls_verify = section.get("tls_verify", _switch, None)
    own_authfile = section.path("authfile", Path.is_file, "file")
    cert_dir = section.path("cert_dir", Path.is_dir, "directory")
    nothing = section.values.get("url") is None and section.values.get("storage") is None
    if nothing and not any(line.startswith(f"{section.where[:-1]}: ") for line in section.problems):
        section.problems.append(f"{section.where[:-1]}: needs a url or a storage")
    if scheme == "http" and tls_verify:
        section.problems.append(f"{section.where}tls_verify: true does not go with an http:// url")
    registry = replace(
        _registry(scheme, host, tls_verify=tls_verify, authfile=own_authfile or authfile, cert_dir=cert_dir),
        max_connections=section.get("max_connections", _int_in(1, 1000), None),
        requests_per_second=section.get("requests_per_second", _pace, None),
    )
    return Place(name=name, registry=registry if host else None, storage=storage)


def _read_retry(section: _Section) -> RetryPolicy:
    section.expect_keys(("attempts", "wait", "max_wait"))
    return RetryPolicy(
        attempts=section.get("attempts", _int_in(1, 20), RetryPolicy().attempts),
        wait=section.get("wait", _seconds_from(0), RetryPolicy().wait),
        max_wait=section.get("max_wait", _seconds_from(0), RetryPolicy().max_wait),
    )


def _read_timeouts(section: _Section) -> Timeouts:
    section.expect_keys(("stall", "copy", "request", "lock"))
    return Timeouts(
        stall=section.get("stall", _seconds_from(1), Timeouts().stall),
        copy=section.get("copy", _seconds_from(1), Timeouts().copy),
        request=section.get("request", _seconds_from(1), Timeouts().request),
        lock=section.get("lock", _seconds_from(0), Timeouts().lock),
    )


def _read_rewrite(section: _Section) -> Rewrite:
    section.expect_keys(("prefix", "keep_host"))
    return Rewrite(
        prefix=section.get("prefix", _prefix, HOST_IS_DROPPED.prefix),
        keep_host=section.get("keep_host", _switch, HOST_IS_DROPPED.keep_host),
    )


def _read_rules(root: _Section) -> tuple[ImageRule, ...]:
    items = root.get("images", _list, [])
    rules = (_read_rule(root, f"{root.where}images[{number}]", item) for number, item in enumerate(items, start=1))
    return tuple(rule for rule in rules if rule is not None)


def _read_rule(root: _Section, where: str, item: object) -> ImageRule | None:
    known = len(root.problems)
    section = replace(root, where=f"{where}.", values=_collected(root.problems, where, item, _mapping, {}))
    section.expect_keys(("match", "semver", "newest", "platform"))
    match = section.get("match", _text, "")
    semver = section.get("semver", _text, None)
    newest = section.get("newest", _int_in(1, 100_000), None)
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
        return tuple(sorted({Platform.parse(part) for part in _text(value).split(",")}))
    except ParseError as error:
        raise UsageError(str(error)) from error


def _parser(kinds: tuple[type[T], ...], what: str, fits: Callable[[T], bool] = lambda _: True) -> Callable[[object], T]:
    def parse(value: object) -> T:
        # True is an int to Python, not to a user.
        if isinstance(value, kinds) and isinstance(value, bool) == (bool in kinds) and fits(value):
            return value
        raise UsageError(f"expected {what}, got {_shown(value)}")

    return parse


_mapping: Final = _parser((dict,), "a mapping (key: value)")
_list: Final = _parser((list,), "a list (- match: …)")
_switch: Final = _parser((bool,), "true or false")
_text: Final = _parser((str,), "a text")
_prefix: Final = _parser(
    (str,),
    "a path with a slash at its end, such as mirror/",
    lambda text: text[-1:] == "/" and is_repository(text[:-1]),
)


_pace: Final = _parser((int, float), "a number from 0.01 to 10000", lambda number: 0.01 <= number <= 10000)


def _int_in(low: int, high: int) -> Callable[[object], int]:
    return _parser((int,), f"a whole number from {low} to {high}", lambda number: low <= number <= high)


def _seconds_from(low: int) -> Callable[[object], float]:
    expected = f"a number of seconds from {low} to {_MAX_SECONDS}"
    return _parser((int, float), expected, lambda number: low <= number <= _MAX_SECONDS)


def _parse_url(value: object) -> tuple[str, str]:
    """`[http://|https://|docker://]HOST[:PORT]` as scheme (empty where TLS is left open) and host."""
    url = _text(value)
    if "@" in url:  # and the url is not shown: errors end up in logs
        raise UsageError("credentials do not belong here; put them in an authfile (skopeo login)")
    scheme, separator, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    if separator and scheme.lower() not in {"http", "https", "docker"}:
        raise UsageError(f"expected https:// or http:// or neither, got {_shown(url)}")
    if slash and path:
        raise UsageError(f"expected HOST[:PORT] without a path, got {_shown(url)}")
    if not is_host(host):
        raise UsageError(f"expected HOST[:PORT], got {_shown(url)}")
    return scheme.lower().replace("docker", ""), host


def _registry(
    scheme: str, host: str, *, authfile: Path | None, tls_verify: bool | None = None, cert_dir: Path | None = None
) -> Registry:
    plain_http = scheme == "http" or (not scheme and not tls_verify and _LOOPBACK.fullmatch(host) is not None)
    verify = not plain_http if tls_verify is None else tls_verify
    return Registry(host=host, tls_verify=verify, plain_http=plain_http, authfile=authfile, cert_dir=cert_dir)


def _path(text: str, base: Path, home: Path) -> Path:
    if re.match(r"~[^/]", text):
        raise UsageError(f"only ~ and ~/ stand for a home directory, got {_shown(text)}")
    if not text or "\0" in text or re.search(r"[\ud800-\udc7f\udd00-\udfff]", text):  # what os.fsencode refuses
        raise UsageError(f"expected a path, got {_shown(text)}")
    return home / text[1:].lstrip("/") if text.startswith("~") else base / text


def _is_there(path: Path, is_right: Callable[[Path], bool]) -> bool:
    try:
        return is_right(path)
    except OSError:  # no permission to look
        return False


def _shown(value: object) -> str:
    """A value as it stands in a message: bounded, on one line, without control characters."""
    if isinstance(value, str):
        text = value if len(value) <= 60 else f"{value[:60]}..."
        return json.dumps(text, ensure_ascii=not text.isprintable())
    if isinstance(value, bool | None):
        return json.dumps(value)
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**20):
        return str(value)
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _advice(word: str, known: Collection[str]) -> str:
    """`did you mean "x"?`, or all that there is. Of the close ones that with the same beginning: typos come later."""
    close = difflib.get_close_matches(word[:60], known, n=3)
    if not close:
        return f"known: {', '.join(known)}"
    same = {name: next((n for n, (a, b) in enumerate(zip(word, name, strict=False)) if a != b), 99) for name in close}
    return f'did you mean "{max(close, key=same.__getitem__)}"?'


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
    return next((path for path in candidates if _is_there(path, Path.is_file)), None)


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
