"""Flags, environment and the configuration file -> Config. Every problem of the file is reported at once.

The only importer of yaml. What the user's environment should mean for registries outside (proxies, certificates,
credentials) is read here, from the `environ` that is passed in, and handed on as values.
"""

import difflib
import ipaddress
import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import yaml

from regwrap.errors import UsageError
from regwrap.model import is_host
from regwrap.tools.access import Place, Registry, Timeouts
from regwrap.tools.retry import RetryPolicy

MAX_CONFIG_BYTES: Final = 1024 * 1024
MAX_JOBS: Final = 64

_DEFAULT_JOBS: Final = 8
_MAX_ATTEMPTS: Final = 20
_MAX_SECONDS: Final = 7 * 24 * 3600
_KEYS: Final = ("registries", "source", "archive", "jobs", "retry", "timeouts")
_REGISTRY_KEYS: Final = ("url", "storage", "authfile", "tls_verify", "cert_dir")
_RETRY_KEYS: Final = ("attempts", "wait", "max_wait")
_TIMEOUT_KEYS: Final = ("stall", "copy", "request", "lock")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LOCAL_HOSTS: Final = ("127.0.0.1", "localhost", "::1")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a run of regwrap works with. `path` is the file that was read; `registries` are in the file's order.

    `environment` is what skopeo and HTTP shall have for outside registries; `default_authfile` is for registries
    without one of their own.
    """

    path: Path | None
    registries: tuple[Place, ...]
    source: Place | None
    archive: Place
    jobs: int
    retry: RetryPolicy
    timeouts: Timeouts
    default_authfile: Path | None
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The options of the command line that stand above the configuration; None where they were not given."""

    config: Path | None = None
    source: str | None = None
    archive: str | None = None
    jobs: int | None = None


def load_config(flags: Flags, *, environ: Mapping[str, str], cwd: Path) -> Config:
    """Flags over environment over file over defaults. Raises UsageError with a line for each problem."""
    home = _home(environ)
    path = _find_file(flags, environ, cwd)
    root = _Section(
        file=path, base=path.parent if path else cwd, home=home, values=_read_file(path) if path else {}, problems=[]
    )
    root.expect_keys(_KEYS)
    authfile = _default_authfile(environ, home)
    archive_root = _xdg(environ, "XDG_DATA_HOME", home / ".local/share") / "regwrap/archive"
    plain = Config(
        path=path,
        registries=_read_registries(root, authfile),
        source=None,
        archive=Place(name="archive", storage=archive_root),
        jobs=_DEFAULT_JOBS,
        retry=_read_retry(root),
        timeouts=_read_timeouts(root),
        default_authfile=authfile,
        environment=_outside_environment(environ),
    )
    config = _with_overrides(plain, flags, root, environ=environ, cwd=cwd)
    if root.problems:
        raise UsageError("\n".join(root.problems))
    return config


def registry_for(config: Config, host: str) -> Registry:
    """How to reach `host`: as it is configured (the first entry counts), else with Docker's defaults."""
    place = _place_of_host(config, host)
    return place.registry or _registry("", host, authfile=config.default_authfile)


def place_of(text: str, config: Config, *, base: Path, home: Path) -> Place:
    """What a user means by NAME, DIR (relative to `base`) or HOST[:PORT], in this order. Raises UsageError.

    A host that is configured is the configured place, with its storage: one registry, however it is named.
    """
    named = {place.name: place for place in config.registries}
    if text in named:
        return named[text]
    if "://" in text:
        return _place_of_url(text, config)
    if text.startswith((".", "/", "~")) or "/" in text or (text and _is_there(base / text, Path.is_dir)):
        return Place(name=text, storage=_path(text, base, home))
    if is_host(text) and ("." in text or ":" in text or text == "localhost"):
        return _place_of_host(config, text)
    _refuse_credentials(text)
    known = f"; {_advice(text, named)}" if named else ""
    raise UsageError(f"{_shown(text)} is neither a configured registry, nor a host, nor a directory{known}")


def _place_of_url(text: str, config: Config) -> Place:
    scheme, host = _parse_url(text)
    place = _place_of_host(config, host)
    if place not in config.registries:
        return Place(name=host, registry=_registry(scheme, host, authfile=config.default_authfile))
    # Neither silently in the clear where the user says https, nor the other way round.
    if scheme and place.registry and place.registry.plain_http != (scheme == "http"):
        speaks = "http" if place.registry.plain_http else "https"
        raise UsageError(f"{text}: the registry {_shown(place.name)} is configured with {speaks}; change its url there")
    return place


def _place_of_host(config: Config, host: str) -> Place:
    for place in config.registries:
        if place.registry and place.registry.host == host:
            return place
    return Place(name=host, registry=_registry("", host, authfile=config.default_authfile))


# Precedence


@dataclass(frozen=True, slots=True)
class _Setting:
    """A value with where it was said, and what its relative paths are relative to."""

    value: object
    origin: str
    base: Path


def _with_overrides(plain: Config, flags: Flags, root: "_Section", *, environ: Mapping[str, str], cwd: Path) -> Config:
    def chosen(key: str, flag: object, in_file: object) -> _Setting:
        """The precedence, in this one place. Empty variables count as unset."""
        variable = f"REGWRAP_{key.upper()}"
        if flag is not None:
            return _Setting(flag, f"--{key}", cwd)
        if environ.get(variable):
            return _Setting(environ[variable], variable, cwd)
        return _Setting(in_file, root.label(key), root.base)

    def place(setting: _Setting, default: Place | None) -> Place | None:
        if setting.value is None:
            return default
        try:
            return place_of(str(setting.value), plain, base=setting.base, home=root.home)
        except UsageError as error:
            root.problems.append(f"{setting.origin}: {error.message}")
            return default

    source = place(chosen("source", flags.source, root.text("source")), None)
    archive = place(chosen("archive", flags.archive, root.text("archive")), plain.archive)
    jobs = _jobs(chosen("jobs", flags.jobs, root.whole("jobs", 1, MAX_JOBS)), root.problems)
    return replace(plain, source=source, archive=archive or plain.archive, jobs=jobs)


def _jobs(setting: _Setting, problems: list[str]) -> int:
    value = setting.value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()):
        value = int(value)
    if isinstance(value, int) and 1 <= value <= MAX_JOBS:
        return value
    if value is not None:
        problems.append(f"{setting.origin}: expected a whole number from 1 to {MAX_JOBS}, got {_shown(value)}")
    return _DEFAULT_JOBS


# The file


def _find_file(flags: Flags, environ: Mapping[str, str], cwd: Path) -> Path | None:
    home = _home(environ)
    for given, origin in ((flags.config, "--config"), (environ.get("REGWRAP_CONFIG"), "REGWRAP_CONFIG")):
        if given:
            path = _path(os.fspath(given), cwd, home)
            if not _is_there(path, Path.exists):
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
        document = _parse_yaml(data.decode(), path)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start + 1})") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UsageError(f"{path}: expected a mapping (key: value), got {_shown(document)}")
    return document


def _parse_yaml(text: str, path: Path) -> object:
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else f"{path}"
        raise UsageError(f"{where}: {_printable(what)}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise UsageError(f"{path}:{line}:{column}: a control character, which YAML does not allow") from error
    except RecursionError as error:
        raise UsageError(f"{path}: too deeply nested") from error
    except (ValueError, OverflowError) as error:  # a date or a number that Python cannot hold
        raise UsageError(f"{path}: not a value: {_printable(str(error))}") from error


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases, which can grow a small file without end, and without keys that stand twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # types-PyYAML has no types here
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: dict[object, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in lines:
                what = f"the key {_shown(key.value)} stands twice, first in line {lines[key.value]}"
                raise yaml.MarkedYAMLError(problem=what, problem_mark=key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return node


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """A mapping of the file. What is wrong in it goes to `problems`, which all sections share.

    A key without a value counts as not there: that is what remains when its children are commented out.
    """

    file: Path | None
    base: Path
    home: Path
    values: dict[object, object]
    problems: list[str]
    name: str = ""

    def label(self, key: object) -> str:
        return f"{self.file}: {f'{self.name}.{key}' if self.name else key}"

    def expect_keys(self, known: Collection[str]) -> None:
        where = f"{self.file}: {self.name}: " if self.name else f"{self.file}: "
        for key in self.values:
            if key not in known:
                self.problems.append(f"{where}unknown key {_shown(key)}; {_advice(str(key), known)}")

    def section(self, key: str) -> "_Section":
        value = self._typed(key, dict, "a mapping (key: value)") or {}
        return replace(self, values=value, name=f"{self.name}.{key}" if self.name else key)

    def text(self, key: str) -> str | None:
        return self._typed(key, str, "a text")

    def switch(self, key: str) -> bool | None:
        return self._typed(key, bool, "true or false")

    def whole(self, key: str, low: int, high: int) -> int | None:
        value = self.values.get(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and low <= value <= high):
            return value
        return self.refuse(key, f"expected a whole number from {low} to {high}, got {_shown(value)}")

    def seconds(self, key: str, default: float, *, low: int = 1) -> float:
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= _MAX_SECONDS:
            return float(value)
        self.refuse(key, f"expected a number of seconds from {low} to {_MAX_SECONDS}, got {_shown(value)}")
        return default

    def path(self, key: str, is_right: Callable[[Path], bool] | None = None, kind: str = "") -> Path | None:
        """The path that `key` gives; with `is_right` it must be there and be a `kind`."""
        text = self.text(key)
        if text is None:
            return None
        try:
            path = _path(text, self.base, self.home)
        except UsageError as error:
            return self.refuse(key, error.message)
        if is_right and not _is_there(path, is_right):
            return self.refuse(key, f"there is no {kind} {path}")
        return path

    def refuse(self, key: object, problem: str) -> None:
        self.problems.append(f"{self.label(key)}: {problem}")

    def _typed(self, key: str, kind: type[T], expected: str) -> T | None:
        value = self.values.get(key)
        if value is None or isinstance(value, kind):
            return value
        return self.refuse(key, f"expected {expected}, got {_shown(value)}")


def _read_registries(root: _Section, authfile: Path | None) -> tuple[Place, ...]:
    section = root.section("registries")
    places = []
    for name in section.values:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            section.refuse(name, f"expected a name of letters, digits, . _ or -, got {_shown(name)}")
            continue
        places.append(_read_place(section.section(name), name, authfile))
    return tuple(places)


def _read_place(section: _Section, name: str, authfile: Path | None) -> Place:
    section.expect_keys(_REGISTRY_KEYS)
    if section.values.get("url") is None and section.values.get("storage") is None:
        section.problems.append(f"{section.file}: {section.name}: needs a url or a storage")
    return Place(name=name, registry=_read_registry(section, authfile), storage=section.path("storage"))


def _read_registry(section: _Section, authfile: Path | None) -> Registry | None:
    url = section.text("url")
    tls_verify = section.switch("tls_verify")
    own_authfile = section.path("authfile", Path.is_file, "file")
    cert_dir = section.path("cert_dir", Path.is_dir, "directory")
    if url is None:
        return None
    try:
        scheme, host = _parse_url(url)
    except UsageError as error:
        return section.refuse("url", error.message)
    if scheme == "http" and tls_verify:
        return section.refuse("tls_verify", "true does not go with an http:// url")
    return _registry(scheme, host, tls_verify=tls_verify, authfile=own_authfile or authfile, cert_dir=cert_dir)


def _read_retry(root: _Section) -> RetryPolicy:
    section, default = root.section("retry"), RetryPolicy()
    section.expect_keys(_RETRY_KEYS)
    return RetryPolicy(
        attempts=section.whole("attempts", 1, _MAX_ATTEMPTS) or default.attempts,
        wait=section.seconds("wait", default.wait, low=0),
        max_wait=section.seconds("max_wait", default.max_wait, low=0),
    )


def _read_timeouts(root: _Section) -> Timeouts:
    section, default = root.section("timeouts"), Timeouts()
    section.expect_keys(_TIMEOUT_KEYS)
    return Timeouts(
        stall=section.seconds("stall", default.stall),
        copy=section.seconds("copy", default.copy),
        request=section.seconds("request", default.request),
        lock=section.seconds("lock", default.lock, low=0),
    )


# Values


def _parse_url(url: str) -> tuple[str, str]:
    """`[http://|https://|docker://]HOST[:PORT]` as scheme (empty where TLS is left open) and host."""
    _refuse_credentials(url)
    scheme, separator, rest = url.rpartition("://")
    host = rest.removesuffix("/")
    if separator and scheme.lower() not in {"http", "https", "docker"}:
        raise UsageError(f"expected https:// or http:// or neither, got {_shown(url)}")
    if is_host(host.partition("/")[0]) and "/" in host:
        raise UsageError(f"expected HOST[:PORT] without a path, got {_shown(url)}")
    if not is_host(host):
        raise UsageError(f"expected HOST[:PORT], got {_shown(url)}")
    return scheme.lower().replace("docker", ""), host


def _refuse_credentials(text: str) -> None:
    if "@" in text:  # and the text is not shown: errors end up in logs
        raise UsageError("credentials do not belong here; put them in an authfile (skopeo login)")


def _registry(
    scheme: str,
    host: str,
    *,
    authfile: Path | None,
    tls_verify: bool | None = None,
    cert_dir: Path | None = None,
) -> Registry:
    plain_http = scheme == "http" or (not scheme and _is_loopback(host) and not tls_verify)
    verify = not plain_http if tls_verify is None else tls_verify
    return Registry(host=host, tls_verify=verify, plain_http=plain_http, authfile=authfile, cert_dir=cert_dir)


def _is_loopback(host: str) -> bool:
    """Docker's rule for registries that are insecure by nature: localhost, 127.0.0.0/8, [::1]."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _path(text: str, base: Path, home: Path) -> Path:
    if re.match(r"~[^/]", text):
        raise UsageError(f"only ~ and ~/ stand for a home directory, got {_shown(text)}")
    try:
        usable = bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise UsageError(f"expected a path, got {_shown(text)}")
    return home / text[2:] if text.startswith("~") else base / text


def _is_there(path: Path, is_right: Callable[[Path], bool]) -> bool:
    try:
        return is_right(path)
    except OSError:  # no permission to look
        return False


def _shown(value: object) -> str:
    """A value as it stands in a message: bounded, on one line, without control characters."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | set | tuple | bytes):
        return "binary data" if isinstance(value, bytes) else "a list"
    if isinstance(value, str):
        text = value if len(value) <= 60 else f"{value[:60]}..."
        return json.dumps(text, ensure_ascii=not text.isprintable())
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int) and abs(value) > 10**20:  # str() of an int has a limit of 4300 digits, and raises
        return "a very large number"
    return str(value)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:300])


def _advice(word: str, known: Collection[str]) -> str:
    """`did you mean "x"?`, or all that there is. Of the close ones that with the same beginning: typos come later."""
    close = difflib.get_close_matches(word[:60], known, n=3)
    if not close:
        return f"known: {', '.join(known)}"
    best = max(close, key=lambda name: len(os.path.commonprefix([word, name])))
    return f'did you mean "{best}"?'


# The environment


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def _xdg(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    """XDG Base Directory Specification: a relative path there is invalid and is ignored."""
    path = Path(environ.get(variable, ""))
    return path if path.is_absolute() else default


def _default_authfile(environ: Mapping[str, str], home: Path) -> Path | None:
    """The first that exists, in the order of containers-auth.json(5)."""
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    candidates = (
        Path(environ.get("REGISTRY_AUTH_FILE") or "/nonexistent"),
        Path(runtime) / ("containers/auth.json" if environ.get("XDG_RUNTIME_DIR") else "auth.json"),
        _xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "containers/auth.json",
        Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json",
    )
    return next((path for path in candidates if _is_there(path, Path.is_file)), None)


def _outside_environment(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Proxies in upper or lower case (upper wins, as in Go) and CAs, only where they are set.

    Behind a proxy the loopback stays direct, where regwrap's own registries listen. Configured registries are not
    added: whether they are behind the proxy is the user's to say.
    """
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    found = {name: environ.get(name) or environ.get(name.lower()) or "" for name in proxies}
    if found["HTTP_PROXY"] or found["HTTPS_PROXY"]:
        entries = [entry.strip() for entry in found["NO_PROXY"].split(",") if entry.strip()]
        found["NO_PROXY"] = ",".join(dict.fromkeys((*entries, *_LOCAL_HOSTS)))
    found |= {name: environ.get(name, "") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    return tuple((name, value) for name, value in found.items() if value)
