"""The changelog. Until a release each change is a file of docs/changes, so that two of them never touch the same line.

`make changelog VERSION=0.3.0` makes a section of them and removes the files. A file is called NAME.KIND.md, KIND is
added, changed or fixed; it has one item of a list, or more. Items that still stand under Unreleased count as well.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[1]
KINDS: Final = ("Added", "Changed", "Fixed")
_UNRELEASED: Final = "## Unreleased\n"
_POINTER: Final = "\n<!-- changes: unreleased -->\n\n"


def changes(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.md"))


def by_kind(directory: Path) -> dict[str, str]:
    """The items of all files, by the kind that their names say. Raises ValueError for another name or form."""
    found: dict[str, str] = {}
    for path in changes(directory):
        kind, text = path.stem.rpartition(".")[2].capitalize(), path.read_text(encoding="utf-8").strip()
        if kind not in KINDS or not text.startswith("- "):
            raise ValueError(f"{path.name}: expected NAME.added.md, .changed.md or .fixed.md with items of a list")
        found[kind] = f"{found.get(kind, '')}{text}\n"
    return found


def standing(changelog: str) -> dict[str, str]:
    """What stands under Unreleased, by kind."""
    part = changelog.partition(_UNRELEASED)[2].partition("\n## ")[0]
    parts = re.split(rf"^({'|'.join(KINDS)})$", part, flags=re.MULTILINE)
    return {kind: f"{items.strip()}\n" for kind, items in zip(parts[1::2], parts[2::2], strict=True) if items.strip()}


def section(*parts: Mapping[str, str]) -> str:
    """The items of all parts below their kinds."""
    kinds = [(kind, "".join(part.get(kind, "") for part in parts)) for kind in KINDS]
    return "\n".join(f"{kind}\n\n{items}" for kind, items in kinds if items)


def released(changelog: str, directory: Path, version: str, date: str) -> str:
    """The changelog with a section of the version, named as its tag, and nothing unreleased."""
    before, _, rest = changelog.partition(_UNRELEASED)
    older = rest[rest.index("\n## ") + 1 :]
    new = section(standing(changelog), by_kind(directory))
    return f"{before}{_UNRELEASED}{_POINTER}## v{version}, {date}\n\n{new}\n{older}"


def main(version: str, date: str) -> None:
    page, directory = DOCS / "CHANGELOG.md", DOCS / "changes"
    page.write_text(released(page.read_text(encoding="utf-8"), directory, version, date), encoding="utf-8")
    for path in changes(directory):
        path.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
