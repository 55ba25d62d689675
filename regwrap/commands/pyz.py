"""regwrap itself as one file for a site: its modules and their libraries, in a zip that python3 runs.

They are those of this very run, so `release` needs neither a network nor tools to build with. Names are sorted, times
fixed, and nothing is compressed, since zlib is not the same everywhere: the same modules are the same bytes. Python's
compiled code fits one version of it, so it stays out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import PathFinder
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zipfile import ZipFile, ZipInfo
from zipimport import zipimporter

from regwrap.bundle.aside import write_atomically
from regwrap.bundle.output import checksum_path
from regwrap.storage.hashing import hash_file

if TYPE_CHECKING:
    from collections.abc import Iterator

PYZ: Final = "regwrap.pyz"
# by the name to import; bcrypt is no Python, and what typer shows with rich is not used
_LIBRARIES: Final = {
    "annotated_doc": "annotated-doc",
    "sh": "sh",
    "shellingham": "shellingham",
    "tenacity": "tenacity",
    "typer": "typer",
    "urllib3": "urllib3",
    "yaml": "PyYAML",
}
_SHEBANG: Final = b"#!/usr/bin/env python3\n"
# understood by any Python, so that an old one says why
_MAIN: Final = """\
import sys

if sys.version_info < (3, 11):
    found = (sys.executable,) + tuple(sys.version_info[:2])
    sys.stderr.write("regwrap: Python 3.11 or newer is needed, and %s is %d.%d\\n" % found)
    sys.stderr.write("  start it with another one: python3.12 regwrap.pyz\\n")
    sys.exit(3)

from regwrap.__main__ import main

if __name__ == "__main__":
    main()
"""
_MODE: Final = 0o755
_NOT_PYTHON: Final = {".so", ".pyc", ".pyd"}


def write_pyz(path: Path) -> str:
    """Write the file, and its checksum beside it; the sha256. Raises ImportError where a library is missing."""
    data = pyz_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    write_atomically(path, data, _MODE)
    write_atomically(checksum_path(path), f"{sha256}  {path.name}\n")
    return sha256


@dataclass(frozen=True, slots=True)
class AddedPyz:
    """`was_other`: another version of it lay there, which is gone."""

    path: Path
    was_other: bool


def add_pyz(bundle: Path) -> AddedPyz:
    """Put the file beside a bundle that was just written, and its line into the bundle's checksums."""
    path = bundle.with_name(PYZ)
    before = hash_file(path).hex if path.is_file() else ""
    sha256 = write_pyz(path)
    checksums = checksum_path(bundle)
    write_atomically(checksums, f"{checksums.read_text(encoding='utf-8')}{sha256}  {PYZ}\n")
    return AddedPyz(path, was_other=before not in {"", sha256})


def pyz_bytes() -> bytes:
    archive = _own_archive()
    if archive is not None:  # who came so goes so
        return archive.read_bytes()
    files = {name: path.read_bytes() for package in ("regwrap", *_LIBRARIES) for name, path in _modules(package)}
    licences = {name: path.read_bytes() for library in _LIBRARIES.values() for name, path in _licences(library)}
    return _zipped({"__main__.py": _MAIN.encode(), **files, **licences})


def _own_archive() -> Path | None:
    spec = PathFinder.find_spec("regwrap")
    loader: object = spec.loader if spec else None
    return Path(loader.archive) if isinstance(loader, zipimporter) else None


def _modules(package: str) -> Iterator[tuple[str, Path]]:
    """Names in the zip, and files."""
    spec = PathFinder.find_spec(package)  # not by what is loaded: sh takes its own place there
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    origin = Path(spec.origin)
    if not spec.submodule_search_locations:
        yield origin.name, origin
        return
    for path in sorted(origin.parent.rglob("*")):
        if path.is_file() and path.suffix not in _NOT_PYTHON:
            yield f"{package}/{path.relative_to(origin.parent).as_posix()}", path


def _licences(library: str) -> Iterator[tuple[str, Path]]:
    """With what names the library and its version."""
    for file in metadata.distribution(library).files or ():
        is_shown = file.name == "METADATA" or "licen" in f"{file}".lower() or file.name.startswith("NOTICE")
        if is_shown and file.parts[0].endswith(".dist-info"):
            yield file.as_posix(), Path(f"{file.locate()}")


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    buffer.write(_SHEBANG)
    with ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            entry = ZipInfo(name)  # of 1980
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()
