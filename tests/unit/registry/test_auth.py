"""Challenges of registries, as they are written."""

import time

import pytest

from regwrap.registry.auth import parse_challenges

TOKEN = {"realm": "https://auth.example/token", "service": "registry.example", "scope": "repository:a/b:pull,push"}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", []),
        (",,", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("bAsIc Realm = x ", [("basic", {"realm": "x"})]),
        ('Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"',
         [("bearer", TOKEN)]),
        ('Bearer realm="https://auth.example/token" , service=registry.example, scope="repository:a/b:pull,push",',
         [("bearer", TOKEN)]),
        ('Basic realm="a, Bearer b=c", Bearer realm="d"',
         [("basic", {"realm": "a, Bearer b=c"}), ("bearer", {"realm": "d"})]),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        (r'Basic realm="a \"b\", \\c"', [("basic", {"realm": r'a "b", \c'})]),
        (r'Basic realm="a\", Bearer b=c", Bearer realm="d"',
         [("basic", {"realm": 'a", Bearer b=c'}), ("bearer", {"realm": "d"})]),
        ('Basic realm="never closed, x=1', [("basic", {"realm": "never closed, x=1"})]),
        ('Basic realm=""', [("basic", {"realm": ""})]),
        ('Basic realm="', [("basic", {"realm": ""})]),
        ('realm="of nobody"', []),
        ("Basic a=b=c", [("basic", {"a": "b=c"})]),
    ],
)  # fmt: skip
def test_challenges(header: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert [(challenge.kind, challenge.parameters) for challenge in parse_challenges(header)] == found


@pytest.mark.parametrize("piece", ['a="', "a=", ",", " ", '\\"', "Bearer ", "x" * 7])
def test_a_long_header_takes_no_time(piece: str) -> None:
    before = time.thread_time()
    parse_challenges("Bearer " + piece * 100_000)
    assert time.thread_time() - before < 1
