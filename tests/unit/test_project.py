"""What the files beside the program say of each other: version and changelog, hooks and make's targets."""

import re
from pathlib import Path

import yaml

import regwrap

ROOT = Path(__file__).parents[2]


def test_the_version_has_a_dated_section_in_the_changelog() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/CHANGELOG.md").read_text(), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert headings.index(released[0]) <= 1
    assert re.fullmatch(rf"{re.escape(regwrap.__version__)} \S \d{{4}}-\d\d-\d\d", released[0])


def test_every_hook_before_a_commit_is_a_target_of_make() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"].split() for hook in local["hooks"]]
    assert [(words[0], words[-1] in targets) for words in entries] == [("make", True)] * len(entries)
    checked = re.search(r"^check:([^#]*)##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert checked
    assert [words[-1] for words in entries] == checked[1].split()
