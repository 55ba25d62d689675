"""What doctor says of each configured registry: which login counts, whether it is taken, whether it may push, and for
how long its certificate is valid.

Nothing changes there: what is put is no manifest, under a digest that is not its own, so that no registry can take it.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.errors import RegwrapError
from regwrap.core.pool import map_in_order
from regwrap.registry.credentials import UnsureError
from regwrap.tools.authfile import AuthfileError, login_of, paths_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from regwrap.core.location import Location, Registry
    from regwrap.registry.probe import Probe

_NAME: Final = "regwrap-doctor"
_SOON: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryHealth:
    """One registry, or a path of it that has a login of its own. `advice` says what to do where it is not `ok`."""

    name: str
    host: str
    login: str
    access: str
    pushing: str
    certificate: str
    ok: bool
    advice: str = ""


@dataclass(frozen=True, slots=True)
class _Access:
    """What came of asking."""

    said: str
    pushing: str
    ok: bool = True
    advice: str = ""


def examine_registries(
    locations: Iterable[Location], probe_of: Callable[[Registry], Probe], now: datetime, jobs: int
) -> tuple[RegistryHealth, ...]:
    """All registries that are configured, several at the same time. `probe_of` makes who asks one."""
    asked: dict[tuple[str, str], tuple[str, Registry]] = {}
    for location, registry in ((location, location.registry) for location in locations if location.registry):
        for path in ("", *paths_of(registry)):
            asked.setdefault((registry.host, path), (f"{location.name}/{path}".rstrip("/"), registry))

    def check(item: tuple[str, str]) -> RegistryHealth:
        return _check(*asked[item], item[1], probe_of, now)

    return map_in_order(check, asked, workers=jobs, name="doctor")


def _check(
    name: str, registry: Registry, path: str, probe_of: Callable[[Registry], Probe], now: datetime
) -> RegistryHealth:
    # whatever the certificate is worth: what is wrong with it is said beside
    anyhow = replace(registry, tls_verify=False, authfile=None)
    with closing(probe_of(anyhow)) as unknown, closing(probe_of(registry)) as probe:
        certificate, is_valid = _certificate(unknown, now)
        access = _access(probe, path)
    return RegistryHealth(
        name=name,
        host=registry.host,
        login=_login(registry, path),
        access=access.said,
        pushing=access.pushing,
        certificate=certificate,
        ok=access.ok and is_valid,
        advice=access.advice,
    )


def _login(registry: Registry, path: str) -> str:
    if registry.authfile is None:
        return "no authfile"
    try:
        login = login_of(registry, path)
    except AuthfileError as error:
        return f"{error}"
    return f"{login.shown} in {registry.authfile}" if login else f"none in {registry.authfile}"


def _access(probe: Probe, path: str) -> _Access:
    repository = f"{path}/{_NAME}" if path else _NAME
    try:
        wants_login = probe.wants_login()
        if not path:
            with suppress(RegwrapError):
                repository = probe.one_repository() or repository
        said = "login accepted" if wants_login and probe.is_welcome(repository) else "open without a login"
        pushing = probe.may_push(repository)
    except (RegwrapError, UnsureError) as error:
        return _Access(f"NO: {error}", "-", ok=False, advice=error.hint or error.advice)
    return _Access(said, "unknown" if pushing is None else "allowed" if pushing else "not allowed")


def _certificate(probe: Probe, now: datetime) -> tuple[str, bool]:
    """How long it is valid, and whether it is now."""
    try:
        end = probe.certificate_end()
    except (RegwrapError, ValueError):
        return "-", True  # why it does not answer is said beside this
    if end is None:
        return "none: plain HTTP", True
    days = (end - now).days
    if end <= now:
        return f"EXPIRED on {end:%Y-%m-%d}", False
    return f"{counted(days, 'day')} left" + (f": renew it before {end:%Y-%m-%d}" if days < _SOON else ""), True
