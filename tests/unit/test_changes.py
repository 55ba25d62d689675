"""Changes are files until a release, which makes a section of the changelog of them."""

from pathlib import Path

import changes
import pytest

from tests.builders import put

CHANGELOG = """\
# Changelog

## Unreleased

<!-- changes: unreleased -->

Fixed

- Somebody wrote it
  here.

## v0.1.0, 2026-11-24

Added

- `sync`.
"""


def test_a_release_puts_its_changes_together(tmp_path: Path) -> None:
    put(tmp_path / "b-new.added.md", b"- `new`: a command.\n")
    put(tmp_path / "a-old.fixed.md", b"- It works\n  again.\n- So does this.\n")
    assert (
        changes.released(CHANGELOG, tmp_path, "0.2.0", "2026-12-24")
        == """\
# Changelog

## Unreleased

<!-- changes: unreleased -->

## v0.2.0, 2026-12-24

Added

- `new`: a command.

Fixed

- Somebody wrote it
  here.
- It works
  again.
- So does this.

## v0.1.0, 2026-11-24

Added

- `sync`.
"""
    )


@pytest.mark.parametrize(("name", "text"), [("x.md", "- x"), ("x.broken.md", "- x"), ("x.added.md", "x")])
def test_a_file_of_another_name_or_form_is_refused(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path / name, text.encode())
    with pytest.raises(ValueError, match=name):
        changes.by_kind(tmp_path)


def test_the_changes_that_wait_for_a_release_can_be_put_together() -> None:
    page = (changes.DOCS / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changes.released(page, changes.DOCS / "changes", "9.9.9", "2099-01-01").count("\n## v9.9.9, ") == 1
