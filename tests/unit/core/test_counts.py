"""Singular and plural."""

import re
from pathlib import Path

import pytest

import regwrap
from regwrap.core.counts import counted


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ("image",), "0 images"),
        (1, ("image",), "1 image"),
        (2, ("image",), "2 images"),
        (1, ("retry", "retries"), "1 retry"),
        (3, ("retry", "retries"), "3 retries"),
        (1, ("tag points", "tags point"), "1 tag points"),
    ],
)
def test_one_is_singular(count: int, words: tuple[str, ...], text: str) -> None:
    assert counted(count, *words) == text


def test_thousands_can_be_told_apart() -> None:
    assert counted(12345, "image", form=",") == "12,345 images"


def test_no_message_counts_by_itself() -> None:
    """A number in braces with a plural behind it says "1 images" one day."""
    things = "images|tags|blobs|files|problems|differences|retries|layers|manifests|repositories|links|names|workers"
    numbers = r"(?:len\([^{}]*\)|(?:report|check|plan|found|inspection)\.\w+)"
    bare = re.compile(rf"{{{numbers}[^{{}}]*}} (?:(?:new|other|more|damaged) )?(?:{things})\b(?!.* > 1)")
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted(Path(regwrap.__file__).parent.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if bare.search(line)
    ]
    assert found == [], "counted() of regwrap.core.counts says them"
