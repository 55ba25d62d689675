"""Options that stand in front of the command."""

import pytest

from regwrap.cli.app import in_order


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sync images.list -q", "sync images.list -q"),
        ("-q sync images.list", "sync -q images.list"),
        ("--config c.yaml -v sync images.list --source s", "sync --config c.yaml -v images.list --source s"),
        ("--config=c.yaml list from-registry ./storage", "list from-registry --config=c.yaml ./storage"),
        ("--quiet report show r.json", "report show --quiet r.json"),
        ("--version", "--version"),
        ("-q", ""),
        ("--config c.yaml", ""),
        ("--config", ""),
        ("-q list", "list"),
        ("-q list --help", "list --help"),
        ("-v list from-registry --help", "list from-registry -v --help"),
        ("", ""),
        ("--help sync -q", "--help sync -q"),
        ("-q --version", "--version"),
        ("--config c.yaml -h", "-h"),
    ],
)
def test_they_count_as_if_they_stood_behind_it(typed: str, meant: str) -> None:
    assert in_order(typed.split()) == meant.split()
