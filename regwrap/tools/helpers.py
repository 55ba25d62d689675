"""Credential helpers (docker-credential-NAME), which skopeo starts: they need the user's world; skopeo must not see it.

So each is started by a script of our own, which comes first on skopeo's PATH and gives it what skopeo must not see.
"""

from __future__ import annotations

import os
import shlex
import shutil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

# what would lead skopeo to the user's configuration; no secret is among them
_ONLY_FOR_HELPERS: Final = ("HOME", "XDG_")


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
    aside.write_text(f'#!/bin/sh\n{given}exec {shlex.quote(program)} "$@"\n', encoding="utf-8")
    aside.chmod(0o700)
    aside.replace(script)  # a skopeo may start it at the same time
