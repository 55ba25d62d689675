"""The configuration's keys as the program itself knows them: asked for with files that are wrong on purpose.

Which keys a section has, and what a key may be, is what regwrap tells a user who got it wrong. Defaults are those of
the types that a configuration is read into. `keys.yml` has what a key is for.
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import yaml

from regwrap.config.load import KEYS, Config, Flags, load_config
from regwrap.core.errors import UsageError
from regwrap.core.location import Registry

# A section: what stands above its keys in a file, and where its problems are reported.
_ABOVE: Final = {
    "": ("", ""),
    "registries": ("registries:\n  cicd:\n    ", "registries.cicd"),
    "rewrite": ("rewrite:\n  ", "rewrite"),
    "images": ("images:\n  - ", "images[1]"),
    "signed": ("signed:\n  - ", "signed[1]"),
    "retry": ("retry:\n  ", "retry"),
    "timeouts": ("timeouts:\n  ", "timeouts"),
}
_WRONG: Final = "[[]]"


@dataclass(frozen=True, slots=True)
class Key:
    """`section` is empty at the top; `kind` is in the words of the program."""

    section: str
    name: str
    kind: str
    default: str
    about: str


@cache
def all_keys() -> list[Key]:
    """In the order in which the program names them."""
    about = descriptions()
    return [
        Key(section, name, _kind(section, name), _default(section, name), about.get(section, {}).get(name, ""))
        for section in _ABOVE
        for name in _names(section)
        if section or name not in _ABOVE
    ]


def descriptions() -> dict[str, dict[str, str]]:
    """What `keys.yml` says, by section; the section at the top is the empty name."""
    path = Path(__file__).with_name("keys.yml")
    found: dict[str, dict[str, str]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def sections() -> tuple[str, ...]:
    return tuple(_ABOVE)


def _names(section: str) -> list[str]:
    """What is known there, as the message says that refuses a key that is not."""
    if not section:
        return [*KEYS]
    above, _where = _ABOVE[section]
    (problem,) = (line for line in _problems(f"{above}zzzzzz: 1\n") if "zzzzzz" in line)
    return problem.rpartition("known: ")[2].split(", ")


def _kind(section: str, name: str) -> str:
    above, where = _ABOVE[section]
    key = f"{where}.{name}" if where else name
    found = [line for line in _problems(f"{above}{name}: {_WRONG}\n") if f" {key}: expected " in line]
    return re.sub(r", got .*", "", found[0].partition(": expected ")[2]) if found else ""


def _problems(text: str) -> list[str]:
    with TemporaryDirectory() as directory:
        file = Path(directory, "regwrap.yaml")
        file.write_text(text, encoding="utf-8")
        try:
            load_config(Flags(), environ={"HOME": directory}, cwd=Path(directory))
        except UsageError as error:
            return [line.removeprefix(f"{file}") for line in error.problems or (error.message,)]
    return []


def _default(section: str, name: str) -> str:
    if section in {"images", "signed"}:
        return ""
    if section == "registries":
        fields = {field.name: field.default for field in dataclasses.fields(Registry)}
        return _shown(fields.get(name))
    with TemporaryDirectory() as directory:
        config = load_config(Flags(), environ={"HOME": directory}, cwd=Path(directory))
        return _shown(_value(config, section, name))


def _value(config: Config, section: str, name: str) -> object:
    value: object = getattr(config, section) if section else config
    found = getattr(value, name, None)
    return None if name in {"archive", "registries", "images", "signed"} else found


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}"
    return value if isinstance(value, str) else os.fspath(value) if isinstance(value, Path) else ""


def environment_variables() -> Iterator[str]:
    """Those of regwrap, as they are named in its source."""
    root = Path(load_config.__code__.co_filename).parent
    found = {name for path in root.rglob("*.py") for name in re.findall(r"\bREGWRAP_[A-Z]+\b", path.read_text())}
    yield from sorted(found)
