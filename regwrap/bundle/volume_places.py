"""Where the volumes of a bundle lie: beside its name, and in the directories that the user has named for the whole
command (`--volumes-from`), whichever of its arguments the bundle is.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_NUMBER: Final = re.compile(r"\.(00[1-9]|0[1-9][0-9]|[1-9][0-9]{2})")
_NAMED: Final[ContextVar[tuple[Path, ...]]] = ContextVar("volumes_from", default=())


@contextmanager
def volumes_also_in(directories: Sequence[Path]) -> Iterator[None]:
    """Volumes of every bundle that is opened in the block may lie there too."""
    token = _NAMED.set(tuple(directories))
    try:
        yield
    finally:
        _NAMED.reset(token)


def named_directories() -> tuple[Path, ...]:
    """Those that the user has named."""
    return _NAMED.get()


def directories_of(bundle: Path) -> tuple[Path, ...]:
    """Where to look, in this order. Some may not be there yet: media are mounted one by one."""
    return tuple(dict.fromkeys((bundle.parent, *_NAMED.get())))


def volume_name(bundle: str, number: int) -> str:
    """`number` from 1 on."""
    return f"{bundle}.{number:03}"


def is_of_bundle(bundle: str, name: str) -> bool:
    """Whether it is the name of the bundle, or of a volume of it."""
    return name == bundle or (name.startswith(bundle) and _NUMBER.fullmatch(name[len(bundle) :]) is not None)


def volumes_in(bundle: Path, directories: Sequence[Path]) -> dict[str, Path]:
    """The volumes that are there now, by name. Raises UsageError where one is doubled."""
    found: dict[str, Path] = {}
    for place in directories:
        with suppress(FileNotFoundError, NotADirectoryError):  # a medium that is not there yet
            for item in sorted(place.iterdir()):
                if item.name != bundle.name and is_of_bundle(bundle.name, item.name) and item.is_file():
                    other = found.setdefault(item.name, item)
                    if other != item and not other.samefile(item):
                        raise UsageError(
                            f"{item.name} is there twice: {other} and {item}",
                            hint="remove one of them, or give other directories",
                        )
    return found


def volumes_of(bundle: Path) -> dict[str, Path]:
    """The same, wherever this bundle's may lie."""
    return volumes_in(bundle, directories_of(bundle))


def beside(bundle: Path, suffix: str) -> Path:
    """The file with the bundle's name and `suffix`, where volumes lie; where none is, the path beside the bundle."""
    name = f"{bundle.name}{suffix}"
    there = (path for place in directories_of(bundle) if (path := place / name).is_file())
    return next(there, bundle.with_name(name))
