"""Credential helpers (docker-credential-NAME), which skopeo and we ask: they need the user's world; skopeo must not see
it.

So each is started by a script of our own, which comes first on skopeo's PATH and gives it what skopeo must not see.
"""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import ToolError
from regwrap.core.fields import a_text, json_object
from regwrap.core.fields import field as value_of
from regwrap.core.writing import write_file
from regwrap.tools.runner import Command, Runner, Tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from regwrap.tools.authfile import Login

# what would lead skopeo to the user's configuration; no secret is among them
_ONLY_FOR_HELPERS: Final = ("HOME", "XDG_")
_HELPER_HINT: Final = "try it by hand: echo HOST | docker-credential-NAME get"
_NOT_FOUND: Final = b"credentials not found"  # docker-credential-helpers, credentials/error.go
_USER_OF_TOKENS: Final = "<token>"  # the secret is an identity token then (docker/cli, types.AuthConfig)
# what a helper reads on its standard input stands in an argument here; it is a registry's name
_ASK: Final = 'printf "%s\\n" "$2" | "$1" get'


@dataclass(slots=True)
class Helpers:
    """Asks each helper once a run for a registry; safe to use from several threads. `place` receives our scripts."""

    runner: Runner
    environment: tuple[tuple[str, str], ...]
    place: Path
    timeout: float
    _known: dict[tuple[str, str], tuple[str, str] | None] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def known(self, login: Login) -> Login | None:
        """The login with what its helper knows; None where that knows none. Raises ToolError."""
        key = (login.helper, login.server)
        with self._lock:
            if key not in self._known:
                self._known[key] = self._asked(*key)
            found = self._known[key]
        if found is None:
            return None
        user, secret = found
        if user == _USER_OF_TOKENS:
            return replace(login, token=secret)
        return replace(login, basic=base64.b64encode(f"{user}:{secret}".encode()).decode())

    def for_skopeo(self, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """What skopeo's environment gets so that it can ask these helpers itself."""
        return wrapped_helpers(names, dict(self.environment), self.place)

    def _asked(self, helper: str, server: str) -> tuple[str, str] | None:
        program = f"docker-credential-{helper}"
        environment = self.for_skopeo([helper])
        if not (self.place / program).exists():
            raise ToolError(f"{program} is not installed", hint="the authfile names it: install it, or skopeo login")
        command = Command(
            tool=Tool.SH,
            args=("-c", _ASK, "sh", os.fspath(self.place / program), server),
            env=environment,
            timeout=self.timeout,
            ok_codes=tuple(range(256)),
        )
        result = self.runner.run(command)
        if result.exit_code and _NOT_FOUND in result.stdout:
            return None
        if result.exit_code:
            said = (result.stdout.decode(errors="replace").strip() or result.stderr.strip())[-500:]
            raise ToolError(f"{program} has no login for {server}", detail=said, hint=_HELPER_HINT)
        return _pair(result.stdout, program)


def _pair(said: bytes, program: str) -> tuple[str, str]:
    try:
        document = json_object(said)
        user, secret = (value_of(document, key, a_text) for key in ("Username", "Secret"))
        f"{user}{secret}".encode()  # of half a surrogate pair no header can be made
        return user, secret
    except ValueError:  # its words would show the secret
        raise ToolError(f"{program} gave no login", hint=_HELPER_HINT) from None


def wrapped_helpers(names: Iterable[str], environment: Mapping[str, str], place: Path) -> tuple[tuple[str, str], ...]:
    """What skopeo's environment gets so that it can ask these helpers. The scripts lie in `place`."""
    path = environment.get("PATH", os.defpath)
    own = {name: value for name, value in environment.items() if name.startswith(_ONLY_FOR_HELPERS)}
    place.mkdir(exist_ok=True)
    for name in names:
        program = f"docker-credential-{name}"
        if (found := shutil.which(program, path=path)) and not (place / program).exists():
            _write_script(place / program, found, own)
    others = tuple((name, value) for name, value in environment.items() if name not in {*own, "PATH"})
    return (*others, ("PATH", f"{place}{os.pathsep}{path}"))


def _write_script(script: Path, program: str, variables: Mapping[str, str]) -> None:
    given = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))
    aside = script.with_suffix(f".{os.getpid()}-{id(variables)}")
    write_file(aside, f'#!/bin/sh\n{given}exec {shlex.quote(program)} "$@"\n')
    aside.chmod(0o700)
    aside.replace(script)  # a skopeo may start it at the same time
