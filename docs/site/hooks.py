"""What mkdocs calls while it builds: generated parts of pages, and pages that nobody has put into the navigation yet.

In the navigation a name that ends with a slash stands for all pages of that directory, its index first.

A part of a page that is generated is named by a comment in it: `<!-- configuration: retry -->`, `<!-- messages:
regwrap.lists.imagelist -->`, `<!-- file: config.example.yaml -->`. `<!-- changes: unreleased -->` stands for the files
of docs/changes. The commands have pages that are generated as a whole.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import changes
import checks
import commands
import configuration
import messages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from tables import code, table

_PART: Final = re.compile(r"^<!-- (changes|configuration|messages|file): *(.*?) *-->$", re.MULTILINE)
_ROOT: Final = Path(__file__).parents[2]
_LOG: Final = logging.getLogger("mkdocs.hooks")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    found = pages(Path(config.docs_dir))
    nav = [_with_directories(child, found) for child in config.nav or ()]
    named = set(_names(nav))
    rest = [name for name in found if name not in named]
    config.nav = [*nav, {"More": rest}] if rest else nav
    return config


def pages(docs: Path) -> list[str]:
    """Paths below `docs`, sorted; an index stands before the other pages of its directory."""
    found = (path.relative_to(docs) for path in docs.rglob("*.md") if path.parent.name != "changes")
    written = sorted(found, key=lambda path: (path.parent, path.name != "index.md", path))
    return [*commands.pages(), *(path.as_posix() for path in written)]


def _with_directories(nav: object, found: Sequence[str]) -> object:
    match nav:
        case str() if nav.endswith("/"):
            return [name for name in found if name.startswith(nav)]
        case Mapping():
            return {title: _with_directories(child, found) for title, child in nav.items()}
        case list():
            made = [_with_directories(child, found) for child in nav]
            return [inner for child in made for inner in (child if isinstance(child, list) else [child])]
        case _:
            return nav


def _names(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, Mapping) else nav if isinstance(nav, Sequence) else ()
    return [name for child in children for name in _names(child)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, text in commands.pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    del config, files
    name = page.file.src_uri
    for problem in checks.unknown(name, markdown):
        _LOG.warning("%s: %s", name, problem)  # which ends a strict build
    return filled(markdown)


@event_priority(-100)
def on_post_build(config: MkDocsConfig) -> None:
    """The index of the search as a script, for pages that are read as files: these may load scripts, but no JSON."""
    index = Path(config.site_dir, "search/search_index.json")
    index.with_suffix(".js").write_text(f"var __index = {index.read_text(encoding='utf-8')}", encoding="utf-8")


def filled(markdown: str) -> str:
    """The page with its generated parts."""
    families = [found[2].split() for found in _PART.finditer(markdown) if found[1] == "messages"]
    named = [module for family in families for module in family if module != "*"]

    def part(found: re.Match[str]) -> str:
        kind, about = found[1], found[2]
        match kind:
            case "messages":
                return _messages(about.split(), named)
            case "changes":
                return changes.section(changes.by_kind(changes.DOCS / "changes"))
            case "configuration":
                return _configuration(about)
            case _:
                return _file(about)

    return _PART.sub(part, markdown)


def _configuration(section: str) -> str:
    keys = [key for key in configuration.all_keys() if key.section == section.strip("-")]
    rows = [(f"`{key.name}`", key.kind, f"`{key.default}`" if key.default else "", key.about) for key in keys]
    return table(("key", "what it may be", "default", ""), rows)


def _messages(family: list[str], named: list[str]) -> str:
    """The family `*` has what no other has."""
    everything = messages.all_messages()
    found = messages.of_modules(everything, family)
    if family == ["*"]:
        elsewhere = set(messages.of_modules(everything, named))
        found = [message for message in everything if message not in elsewhere]
    if not found:
        return "There are none."
    texts = dict.fromkeys((message.text, message.todo) for message in found)
    return table(("it says", "what to do"), [(code(text), code(todo)) for text, todo in texts])


def _file(name: str) -> str:
    return f"```yaml\n{(_ROOT / name).read_text(encoding='utf-8')}```"
