"""What the files beside the program say of each other: version and changelog, hooks and make's targets."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeGuard

import pytest
import yaml

import regwrap

ROOT = Path(__file__).parents[2]


def test_the_version_has_a_dated_section_in_the_changelog() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/CHANGELOG.md").read_text(), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert headings.index(released[0]) <= 1
    assert re.fullmatch(rf"v{re.escape(regwrap.__version__)}, \d{{4}}-\d\d-\d\d", released[0])


def test_every_hook_before_a_commit_is_a_target_of_make() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"].split() for hook in local["hooks"]]
    assert [(words[0], words[-1] in targets) for words in entries] == [("make", True)] * len(entries)
    checked = re.search(r"^CHECKS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert checked
    assert [words[-1] for words in entries] == checked[1].split()


def test_every_page_and_example_names_the_image_of_this_version() -> None:
    pages = [
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(path for path in (ROOT / "examples").rglob("*") if path.is_file()),
    ]
    versions = {version for path in pages for version in re.findall(r"/regwrap:(\d[\d.]*)", path.read_text())}
    assert versions == {regwrap.__version__}


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    assert 60 <= len(text.splitlines()) <= 90
    for link, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        page = ROOT / link
        assert page.is_file(), link
        headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in headings}


# a number of things in a text, whose word would be wrong for one of them
_NUMBER = re.compile(r"^(?!counted\().*(?:\blen\(|\b(?:count|attempts|days|files)\b)")
_PLURAL = re.compile(r" (?!bytes|characters)(?:(?:listed|more|new|other|smaller) )?[a-z]{3,}[^s\W]s\b(?! in| to)")


def _numbers_with_words() -> Iterator[str]:
    for path in sorted((ROOT / "regwrap").rglob("*.py")):
        texts = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.JoinedStr))
        pairs = (pair for node in texts for pair in pairwise(node.values))
        for number, words in pairs:
            text = words.value if isinstance(words, ast.Constant) else None
            if isinstance(number, ast.FormattedValue) and isinstance(text, str):
                shown = ast.unparse(number.value)
                if _NUMBER.search(shown) and _PLURAL.match(text):
                    yield f"{path.name}:{number.lineno}: {{{shown}}}{text}"


@pytest.mark.exhaustive
def test_one_function_writes_numbers_with_their_words() -> None:
    """core/counts.py: `1 image`, `2 images`."""
    assert list(_numbers_with_words()) == []


@pytest.mark.exhaustive
def test_a_file_with_a_buffer_is_told_by_its_name_when_the_disk_is_full() -> None:
    """Closing writes what is left in the buffer, and of that the kernel says only what failed."""
    nameless = []
    for path in sorted((ROOT / "regwrap").rglob("*.py")):
        tree = ast.parse(path.read_text())
        told = {arg for call in ast.walk(tree) if _calls(call, "named_on_error") for arg in ast.iter_child_nodes(call)}
        for call in ast.walk(tree):
            if _writes_through_a_buffer(call) and call not in told and path.parent.name != "tools":
                nameless.append(f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)}")
    assert nameless == []


@pytest.mark.exhaustive
def test_of_an_open_file_that_cannot_be_looked_at_the_name_is_told() -> None:
    """`status_of` tells it; who calls fstat itself has a try around it, or needs no name."""
    known = {"core/writing.py", "storage/tree.py", "storage/store.py", "bundle/pipe.py", "cli/streams.py"}
    found = set()
    for path in sorted((ROOT / "regwrap").rglob("*.py")):
        if any(_calls(call, "fstat") for call in ast.walk(ast.parse(path.read_text()))):
            found.add(f"{path.relative_to(ROOT / 'regwrap')}")
    assert found - known == set()


def _calls(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name


def _writes_through_a_buffer(node: ast.AST) -> TypeGuard[ast.Call]:
    if not isinstance(node, ast.Call) or not (_calls(node, "open") or _calls(node, "fdopen")):
        return False
    modes = {arg.value for arg in ast.walk(node) if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    has_buffer = all(word.arg != "buffering" for word in node.keywords)
    return has_buffer and any(re.fullmatch(r"[wax]b?\+?|r\+b?", mode) for mode in modes)


def test_no_two_files_of_unit_tests_have_one_name() -> None:
    """pytest takes the second for the first, and refuses it, where both are in one run."""
    names = [path.name for path in (ROOT / "tests/unit").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
