"""What mkdocs calls while it builds: generated parts of pages, and pages that nobody has put into the navigation yet.

In the navigation a name that ends with a slash stands for all pages of that directory, its index first.

A part of a page that is generated is named by a comment in it: `<!-- configuration: retry -->`, `<!-- messages:
regwrap.lists.imagelist -->`, `<!-- file: config.example.yaml -->`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import configuration
import messages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_PART: Final = re.compile(r"^<!-- (configuration|messages|file): *(.*?) *-->$", re.MULTILINE)
_ROOT: Final = Path(__file__).parents[2]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    found = pages(Path(config.docs_dir))
    nav = [_with_directories(child, found) for child in config.nav or ()]
    named = set(_names(nav))
    rest = [name for name in found if name not in named]
    config.nav = [*nav, {"More": rest}] if rest else nav
    return config


def pages(docs: Path) -> list[str]:
    """Paths below `docs`, sorted; an index stands before the other pages of its directory."""
    found = (path.relative_to(docs) for path in docs.rglob("*.md"))
    return [path.as_posix() for path in sorted(found, key=lambda path: (path.parent, path.name != "index.md", path))]


def _with_directories(nav: object, found: Sequence[str]) -> object:
    match nav:
        case str() if nav.endswith("/"):
            return [name for name in found if name.startswith(nav)]
        case Mapping():
            return {title: _with_directories(child, found) for title, child in nav.items()}
        case list():
            return [_with_directories(child, found) for child in nav]
        case _:
            return nav


def _names(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, Mapping) else nav if isinstance(nav, Sequence) else ()
    return [name for child in children for name in _names(child)]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    del page, config, files
    return filled(markdown)


def filled(markdown: str) -> str:
    """The page with its generated parts."""
    families = [found[2].split() for found in _PART.finditer(markdown) if found[1] == "messages"]
    named = [module for family in families for module in family if module != "*"]

    def part(found: re.Match[str]) -> str:
        kind, about = found[1], found[2]
        if kind == "messages":
            return _messages(about.split(), named)
        return _configuration(about) if kind == "configuration" else _file(about)

    return _PART.sub(part, markdown)


def _configuration(section: str) -> str:
    keys = [key for key in configuration.all_keys() if key.section == section.strip("-")]
    rows = [(f"`{key.name}`", key.kind, f"`{key.default}`" if key.default else "", key.about) for key in keys]
    return _table(("key", "what it may be", "default", ""), rows)


def _messages(family: list[str], named: list[str]) -> str:
    """The family `*` has what no other has."""
    everything = messages.all_messages()
    found = messages.of_modules(everything, family)
    if family == ["*"]:
        found = [message for message in everything if message not in set(messages.of_modules(everything, named))]
    if not found:
        return "There are none."
    texts = dict.fromkeys((message.text, message.hint) for message in found)
    return _table(("it says", "what to do"), [(_code(text), _code(hint)) for text, hint in texts])


def _file(name: str) -> str:
    return f"```yaml\n{(_ROOT / name).read_text(encoding='utf-8')}```"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    """As it is written, `{…}` for what differs from case to case."""
    flat = " ".join(text.split())
    fence = "``" if "`" in flat else "`"
    edge = " " if "`" in flat else ""
    return f"{fence}{edge}{flat}{edge}{fence}" if flat else ""
