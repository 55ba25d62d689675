"""The page of the reports from the field names tests that are there, and all of theirs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/field-reports.md").read_text(encoding="utf-8")


def names_in(*files: Path) -> set[str]:
    return {name for file in files for name in re.findall(r"^def (test_\w+)\(", file.read_text(), re.MULTILINE)}


@pytest.mark.slow
def test_each_test_of_the_page_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named - names_in(*(ROOT / "tests").rglob("test_*.py")) == set()


def test_each_test_of_a_report_is_on_the_page() -> None:
    assert {name for name in names_in(*(ROOT / "tests/release").glob("test_field_*.py")) if name not in PAGE} == set()


def test_each_file_of_the_page_is_there() -> None:
    assert [name for name in re.findall(r"`(tests/[\w/]+\.py)`", PAGE) if not (ROOT / name).is_file()] == []
