"""Which versions a range means, and how versions are ordered."""

import pytest

from regwrap.core.model import ParseError
from regwrap.lists.semver import parse_range, parse_version


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=1.2 <2", "1.2 1.2.0 v1.9.9 1.2.3", "1.1.9 2 2.0.0 2.0.0-rc.1 1.3.0-rc.1"),
        (">=1.2, <2", "1.5", "2"),
        (">= 1.2 < 2", "1.5", "2"),
        (">1.2", "1.3 2", "1.2.0 1.2.9 1.2"),
        (">1.2.3", "1.2.4", "1.2.3 1.2.4-rc.1"),
        ("<=1.2", "1.2.9 1.2 0.1", "1.3.0"),
        ("<1.2", "1.1.9", "1.2.0 1.2.0-rc.1"),
        ("1.2", "1.2.0 1.2.9", "1.3.0 1.1.0"),
        ("=1.2.3", "1.2.3 v1.2.3", "1.2.4 1.2.3-rc.1"),
        ("^1.2.3", "1.2.3 1.9", "1.2.2 2.0.0"),
        ("^0.2.3", "0.2.9", "0.3.0"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0.0", "0.0.9", "0.1.0"),
        ("^0", "0.9.9", "1.0.0"),
        ("^1", "1.9.9", "2.0.0"),
        ("~1.2.3", "1.2.9", "1.2.2 1.3.0"),
        ("~1.2", "1.2.0", "1.3"),
        ("~1", "1.9", "2"),
        ("^1.4 || ~2.0", "1.4 1.9 2.0.7", "1.3 2.1"),
        ("*", "0.0.1 99", "1.0.0-rc.1"),
        (">=1.3.0-rc.1 <2", "1.3.0-rc.1 1.3.0-rc.2 1.3.0-rc.10 1.3.0 1.9", "1.3.0-beta 1.4.0-rc.1"),
        ("=1.3.0-rc.1", "1.3.0-rc.1", "1.3.0 1.3.0-rc.2 1.3.0-rc.1.1"),
        ("<=1.3.0-rc.1", "1.3.0-rc.1 1.3.0-rc.0 1.2", "1.3.0-rc.2 1.3.0"),
        ("24.04", "24.04 24.4.1", "24.10"),
    ],
)
def test_ranges(text: str, inside: str, outside: str) -> None:
    found = parse_range(text)
    for tags, expected in ((inside, True), (outside, False)):
        for tag in tags.split():
            version = parse_version(tag)
            assert version is not None
            assert found.holds(version) is expected, tag


@pytest.mark.parametrize("tag", ["latest", "v", "1.2.3.4", "1.2.", "1.2.3-", "1.2.3-a..b", "x1", "1_2", "9999999999"])
def test_what_is_no_version(tag: str) -> None:
    assert parse_version(tag) is None


def test_the_order_of_semver_org() -> None:
    ordered = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
               "1.0.0-rc.1", "1.0.0", "1.2.0", "1.10.0", "2"]  # fmt: skip
    versions = [version for text in ordered if (version := parse_version(text))]
    backwards = list(reversed(versions))
    assert sorted(backwards, key=lambda version: version.key) == versions


@pytest.mark.parametrize("text", ["", " ", "1 ||", ">=", "1.x", "1 - 2", "!=1", ">=1.2.3.4", "a"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ParseError, match="a range looks like"):
        parse_range(text)
