"""What a rule of the configuration means: of repositories, of tags, of versions."""

import pytest

from regwrap.core.model import ImageRef, ParseError
from regwrap.lists.rules import ImageRule, make_rule, rule_line

TAGS = ("v1.0.0", "v1.2.0", "v1.10.0", "v1.11.0-rc.1", "v2.0.0", "latest", "16-alpine")


def rule(match: str, semver: str | None = None, newest: int | None = None) -> ImageRule:
    return make_rule(match, semver=semver, newest=newest, platforms=())


@pytest.mark.parametrize(
    ("match", "semver", "newest", "tags"),
    [
        ("a", None, None, TAGS),
        ("a:v1.*", None, None, ("v1.0.0", "v1.2.0", "v1.10.0", "v1.11.0-rc.1")),
        ("a:v?.0.0", None, None, ("v1.0.0", "v2.0.0")),
        ("a", ">=1.2 <2", None, ("v1.2.0", "v1.10.0")),
        ("a", None, 2, ("v1.10.0", "v2.0.0")),
        ("a:v1.*", None, 1, ("v1.10.0",)),
        ("a", ">=1.11.0-rc.0 <2", 1, ("v1.11.0-rc.1",)),
        ("a:none*", None, None, ()),
        ("a:latest", None, None, ("latest",)),
    ],
)
def test_tags(match: str, semver: str | None, newest: int | None, tags: tuple[str, ...]) -> None:
    assert rule(match, semver, newest).chosen(TAGS) == tuple(sorted(tags))


@pytest.mark.parametrize(
    ("match", "fits", "fits_not"),
    [
        ("team/*:v1.*", ["team/api"], ["team", "team/api/web", "my/team/api", "teams/api"]),
        ("team/**", ["team/api", "team/api/web"], ["team"]),
        ("**/api", ["team/api", "a/b/api"], ["api"]),
        ("a.b", ["a.b"], ["axb"]),
        ("docker.io/redis:7", ["library/redis"], ["redis"]),
    ],
)
def test_repositories(match: str, fits: list[str], fits_not: list[str]) -> None:
    found = rule(match)
    assert [name for name in (*fits, *fits_not) if found.fits_repository(name)] == fits


def test_an_image_fits_by_host_repository_and_tag() -> None:
    found = rule("r.example:5000/team/*", ">=1")
    assert found.fits(ImageRef.parse("r.example:5000/team/api:v1.2"))
    for other in ("team/api:v1.2", "r.example/team/api:v1.2", "r.example:5000/team/api:v0.9"):
        assert not found.fits(ImageRef.parse(other))


def test_only_a_pattern_needs_the_catalog() -> None:
    assert rule("r.example/team/api:v*").match.is_one_repository
    assert not rule("r.example/team/*").match.is_one_repository


@pytest.mark.parametrize("match", ["", "Team/*", "a//b", "a:", "a:b:c", "a b", "a@sha256:1", "/a", "-x.y_/a", "a:$x"])
def test_what_is_no_match(match: str) -> None:
    with pytest.raises(ParseError):
        rule(match)


def test_a_line_of_a_rule() -> None:
    assert rule_line(rule("r.example/team/*"), "team/api", "v1") == "r.example/team/api:v1"
