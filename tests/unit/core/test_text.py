"""Sizes and tables as people write and read them, and foreign text that must not act on a terminal."""

import pytest

from regwrap.core.model import ParseError
from regwrap.core.text import human_bytes, parse_bytes, printable, short_digests, table


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0), ("12", 12), ("12 b", 12), ("1kB", 1000), ("2 MB", 2_000_000), ("4.7GB", 4_700_000_000),
        ("1.5 tb", 1_500_000_000_000), ("1KiB", 1024), ("1.5MiB", 1_572_864), ("4GiB", 4 * 2**30), (" 1 TiB ", 2**40),
    ],
)  # fmt: skip
def test_a_size_is_what_disks_and_people_call_so(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e3", "1.GB", "1 XB", "1 GB x", "9" * 16])
def test_what_is_no_size_is_refused_and_shown(text: str) -> None:
    with pytest.raises(ParseError, match=r"expected a size such as 4\.7GB or 500MB, got \""):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (-999, "-999 B"), (-1000, "-1.0 kB"), (1_240_000, "1.2 MB"),
        (10**9, "1.0 GB"), (10**12, "1.0 TB"), (25 * 10**14, "2500.0 TB"),
    ],
)  # fmt: skip
def test_a_size_has_three_digits_and_its_unit(count: float, text: str) -> None:
    assert human_bytes(count) == text


def test_what_would_act_on_a_terminal_is_seen_in_place_of_acting() -> None:
    assert printable("a\x1b[2Jb\u202ec\r\nü\udc80") == r"a\x1b[2Jb\u202ec\r\nü\udc80"
    assert printable("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"


def test_columns_are_as_wide_as_their_widest_text_and_nothing_stands_behind_the_last() -> None:
    assert table([("a", "b", ""), ("long\n", "x", "last"), ("", "wide", "")]) == [
        "a       b",
        r"long\n  x     last",
        "        wide",
    ]
    assert table([]) == []


def test_a_digest_is_as_short_as_docker_shows_it_and_what_is_none_stays() -> None:
    digest = f"sha256:{'0123456789abcdef' * 4}"
    assert short_digests(f"a@{digest}, {digest}.") == "a@sha256:0123456789ab, sha256:0123456789ab."
    assert short_digests(f"{digest}0 {digest[:-1]}") == f"{digest}0 {digest[:-1]}"
