"""config.yaml, environment and flags become one Config; every problem is reported at once.

Precedence: flag > environment > file > default. This is also the one place that reads what the user's environment has
for outside registries (authfile, proxies, certificates): programs get it from here or not at all.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from regwrap.errors import UsageError
from regwrap.model import is_host
from regwrap.tools.access import Place, Registry, Timeouts
from regwrap.tools.retry import RetryPolicy

DEFAULT_JOBS: Final = 8
_MAX_BYTES: Final = 1024 * 1024
_DAY: Final = 86400.0

_TOP_KEYS: Final = ("registries", "source", "archive", "jobs", "retry", "timeouts")
_REGISTRY_KEYS: Final = ("url", "storage", "authfile", "tls_verify", "cert_dir")
_RETRY_KEYS: Final = ("attempts", "wait", "max_wait")
_TIMEOUT_KEYS: Final = ("stall", "copy", "request", "lock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings. `environment` is what skopeo and HTTP requests get for outside registries."""

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
    """What the command line says; None where it says nothing."""

    config: Path | None = None
    source: str | None = None
    archive: str | None = None
    jobs: int | None = None


def load_config(flags: Flags, *, environ: Mapping[str, str], cwd: Path) -> Config:
    """Find, read and check the configuration. Raises UsageError with a line for each problem."""
    path = _find(flags.config, environ, cwd)
    problems = _Problems(str(path) if path else "configuration")
    document = {} if path is None else _read(path)
    base = cwd if path is None else path.parent
    settings = _Settings(document, problems, base=base, cwd=cwd, environ=environ)
    config = settings.build(flags, path)
    problems.raise_any()
    return config


def registry_for(config: Config, host: str) -> Registry:
    """How to reach the registry `host`: as configured, else with Docker's defaults."""
    configured = (place.registry for place in config.registries if place.registry and place.registry.host == host)
    return next(configured, None) or _plain_registry(host, config.default_authfile)


def _plain_registry(host: str, authfile: Path | None) -> Registry:
    # Docker's rule: loopback registries may speak plain HTTP, all others have to have a certificate
    local = _is_loopback(host)
    return Registry(host=host, tls_verify=not local, plain_http=local, authfile=authfile)


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name in {"localhost", "[::1]"} or name.startswith("127.")


@dataclass(slots=True)
class _Problems:
    """Collects what is wrong: `FILE: retry.attempts: expected …`."""

    file: str
    lines: list[str] = field(default_factory=list)

    def add(self, key: str, text: str) -> None:
        self.lines.append(f"{self.file}: {key}: {text}" if key else f"{self.file}: {text}")

    def raise_any(self) -> None:
        if self.lines:
            raise UsageError("\n".join(self.lines), hint="config.example.yaml shows every setting")


def _find(flag: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    named = flag or (Path(environ["REGWRAP_CONFIG"]) if environ.get("REGWRAP_CONFIG") else None)
    if named is not None:
        path = cwd / named.expanduser()
        if not path.is_file():
            raise UsageError(f"the configuration {path} does not exist", hint="--config or $REGWRAP_CONFIG names it")
        return path
    home = Path(environ.get("HOME", "/"))
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "regwrap/config.yaml"
    return next((path for path in (cwd / "regwrap.yaml", user) if path.is_file()), None)


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, with a key that stands twice as an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:  # noqa: FBT001, FBT002
        seen: set[str] = set()
        for key, _value in node.value:
            if isinstance(key.value, str) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{path}: more than {_MAX_BYTES} bytes are no configuration")
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise UsageError(f"{where}: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise UsageError(f"{path}: expected settings (key: value), got {_shown(document)}")
    return document


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:60] + "…"


class _Settings:
    """One document being checked; wrong values are noted and replaced by defaults, so that checking goes on."""

    def __init__(
        self, document: dict[str, object], problems: _Problems, *, base: Path, cwd: Path, environ: Mapping[str, str]
    ) -> None:
        self.document = document
        self.problems = problems
        self.base = base
        self.cwd = cwd
        self.environ = environ
        self.authfile = _default_authfile(environ)

    def build(self, flags: Flags, path: Path | None) -> Config:
        self._check_keys(self.document, "", _TOP_KEYS)
        registries = tuple(self._registries())
        retry, timeouts = self._section("retry", _RETRY_KEYS), self._section("timeouts", _TIMEOUT_KEYS)
        policy = RetryPolicy(
            attempts=int(self._number(retry, "retry", "attempts", RetryPolicy().attempts, (1, 20), whole=True)),
            wait=self._number(retry, "retry", "wait", RetryPolicy().wait, (0, 3600)),
            max_wait=self._number(retry, "retry", "max_wait", RetryPolicy().max_wait, (0, 3600)),
        )
        limits = Timeouts(
            **{
                key: self._number(timeouts, "timeouts", key, getattr(Timeouts(), key), (0.1, 7 * _DAY))
                for key in _TIMEOUT_KEYS
            }
        )
        source = self._place("source", flags.source, "REGWRAP_SOURCE", registries)
        archive = self._place("archive", flags.archive, "REGWRAP_ARCHIVE", registries)
        return Config(
            path=path,
            registries=registries,
            source=source,
            archive=archive or self._embedded(),
            jobs=self._jobs(flags.jobs),
            retry=policy,
            timeouts=limits,
            default_authfile=self.authfile,
            environment=_outside_environment(self.environ),
        )

    def _embedded(self) -> Place:
        home = Path(self.environ.get("HOME", "/"))
        data = Path(self.environ.get("XDG_DATA_HOME") or home / ".local/share")
        return Place(name="embedded", storage=data / "regwrap/archive")

    def _jobs(self, flag: int | None) -> int:
        text = self.environ.get("REGWRAP_JOBS", "")
        if flag is not None:
            return flag
        if text:
            if text.isdigit() and 1 <= int(text) <= 64:
                return int(text)
            raise UsageError(f"REGWRAP_JOBS: expected a whole number from 1 to 64, got {_shown(text)}")
        return int(self._number(self.document, "", "jobs", DEFAULT_JOBS, (1, 64), whole=True))

    def _section(self, name: str, keys: tuple[str, ...]) -> dict[str, object]:
        section = self.document.get(name)
        if section is None:
            return {}
        if not isinstance(section, dict):
            self.problems.add(name, f"expected settings (key: value), got {_shown(section)}")
            return {}
        self._check_keys(section, name, keys)
        return section

    def _check_keys(self, section: Mapping[str, object], name: str, keys: tuple[str, ...]) -> None:
        for key in section:
            if key not in keys:
                close = difflib.get_close_matches(str(key), keys, n=1)
                meant = f'; did you mean "{close[0]}"?' if close else f"; there are {', '.join(keys)}"
                self.problems.add(name, f'unknown key "{key}"{meant}')

    def _number(
        self, section: Mapping[str, object], name: str, key: str, default: float, limits: tuple[float, float],
        *, whole: bool = False,
    ) -> float:  # fmt: skip
        value = section.get(key, default)
        kinds = (int,) if whole else (int, float)
        if type(value) in kinds and isinstance(value, int | float) and limits[0] <= value <= limits[1]:
            return value
        kind = "a whole number" if whole else "a number of seconds"
        full = f"{name}.{key}" if name else key
        self.problems.add(full, f"expected {kind} from {limits[0]:g} to {limits[1]:g}, got {_shown(value)}")
        return default

    def _registries(self) -> Iterator[Place]:
        section = self.document.get("registries")
        if section is None:
            return
        if not isinstance(section, dict):
            self.problems.add("registries", f"expected names with settings, got {_shown(section)}")
            return
        for name, item in section.items():
            where = f"registries.{name}"
            if not isinstance(item, dict):
                self.problems.add(where, f"expected settings (url: …), got {_shown(item)}")
                continue
            self._check_keys(item, where, _REGISTRY_KEYS)
            yield self._registry(str(name), where, item)

    def _registry(self, name: str, where: str, item: Mapping[str, object]) -> Place:
        storage = self._path(item, where, "storage", exists=None)
        authfile = self._path(item, where, "authfile", exists=Path.is_file)
        cert_dir = self._path(item, where, "cert_dir", exists=Path.is_dir)
        verify = item.get("tls_verify")
        if verify is not None and not isinstance(verify, bool):
            self.problems.add(f"{where}.tls_verify", f"expected true or false, got {_shown(verify)}")
        url = item.get("url")
        if url is None:
            if storage is None:
                self.problems.add(where, "needs a url or a storage")
            return Place(name=name, storage=storage)
        host, plain = self._host(where, url)
        registry = Registry(
            host=host,
            tls_verify=verify if isinstance(verify, bool) else not plain,
            plain_http=plain,
            authfile=authfile or self.authfile,
            cert_dir=cert_dir,
        )
        return Place(name=name, registry=registry, storage=storage)

    def _host(self, where: str, url: object) -> tuple[str, bool]:
        text = url if isinstance(url, str) else ""
        scheme, _, rest = text.partition("://") if "://" in text else ("", "", text)
        host = rest.removesuffix("/")
        if scheme not in {"", "http", "https"} or not host or not is_host(host):
            self.problems.add(f"{where}.url", f"expected https://HOST[:PORT], without a path, got {_shown(url)}")
            return "invalid.invalid", False
        return host, scheme == "http" or (not scheme and _is_loopback(host))

    def _path(
        self, item: Mapping[str, object], where: str, key: str, *, exists: Callable[[Path], bool] | None
    ) -> Path | None:
        value = item.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            self.problems.add(f"{where}.{key}", f"expected a path, got {_shown(value)}")
            return None
        path = self.base / _expanded(value, self.environ)
        if exists is not None and not exists(path):
            self.problems.add(f"{where}.{key}", f"{path} does not exist")
        return path

    def _place(self, key: str, flag: str | None, variable: str, registries: tuple[Place, ...]) -> Place | None:
        for text, origin, base in (
            (flag, f"--{key}", self.cwd),
            (self.environ.get(variable) or None, variable, self.cwd),
            (self.document.get(key), "", self.base),
        ):
            if text is None:
                continue
            if not isinstance(text, str) or not text:
                self.problems.add(key, f"expected NAME, HOST[:PORT] or DIR, got {_shown(text)}")
                return None
            try:
                return place_of(text, registries, authfile=self.authfile, base=base, environ=self.environ)
            except UsageError as error:
                if origin:
                    raise UsageError(f"{origin}: {error.message}", hint=error.hint) from error
                self.problems.add(key, error.message)
                return None
        return None


def place_of(
    text: str, registries: tuple[Place, ...], *, authfile: Path | None, base: Path, environ: Mapping[str, str]
) -> Place:
    """What NAME, HOST[:PORT] or DIR means: a configured name first, then a path, then a host. Raises UsageError."""
    named = next((place for place in registries if place.name == text), None)
    if named is not None:
        return named
    for scheme in ("docker://", "https://", "http://"):
        if text.startswith(scheme):
            host = text.removeprefix(scheme).removesuffix("/")
            if is_host(host):
                registry = _plain_registry(host, authfile)
                plain = registry.plain_http or scheme == "http://"
                return Place(
                    name=host,
                    registry=Registry(
                        host=host, tls_verify=registry.tls_verify and not plain, plain_http=plain, authfile=authfile
                    ),
                )
    path = base / _expanded(text, environ)
    if text[0] in "./~" or ("/" in text and "://" not in text) or path.is_dir():
        return Place(name=text, storage=path)
    if is_host(text) and ("." in text or ":" in text or text == "localhost"):
        configured = (place for place in registries if place.registry and place.registry.host == text)
        return next(configured, None) or Place(name=text, registry=_plain_registry(text, authfile))
    names = [place.name for place in registries]
    close = difflib.get_close_matches(text, names, n=1)
    hint = f'did you mean "{close[0]}"?' if close else "a HOST has a dot or a port, a DIR a slash or exists"
    raise UsageError(f"{_shown(text)} is no configured registry, no host and no directory", hint=hint)


def _expanded(text: str, environ: Mapping[str, str]) -> Path:
    if text == "~" or text.startswith("~/"):
        return Path(environ.get("HOME", "/")) / text[2:]
    return Path(text)


def _default_authfile(environ: Mapping[str, str]) -> Path | None:
    """The file that skopeo and docker would take (containers-auth.json(5)), in their order."""
    home = Path(environ.get("HOME", "/"))
    docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    runtime = environ.get("XDG_RUNTIME_DIR")
    candidates = (
        Path(environ["REGISTRY_AUTH_FILE"]) if environ.get("REGISTRY_AUTH_FILE") else None,
        Path(runtime) / "containers/auth.json" if runtime else None,
        home / ".config/containers/auth.json",
        docker,
    )
    return next((path for path in candidates if path is not None and path.is_file()), None)


def _outside_environment(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        value = environ.get(name) or environ.get(name.lower())
        if value:
            found[name] = value
    if "HTTP_PROXY" in found or "HTTPS_PROXY" in found:
        own = [found["NO_PROXY"]] if "NO_PROXY" in found else []
        found["NO_PROXY"] = ",".join([*own, "127.0.0.1", "localhost", "::1"])
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if environ.get(name):
            found[name] = environ[name]
    return tuple(sorted(found.items()))
