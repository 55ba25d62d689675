"""Short names: no two images have the same, and a name that is cut still tells its image from the others."""

import pytest

from regwrap.report.page_names import fitted, names_apart


def test_the_last_part_is_enough_where_it_is_nobody_elses() -> None:
    found = names_apart(["team/app:v1", "team/app:v2", "third-party/redis:7"])
    assert found == {"team/app:v1": "app:v1", "team/app:v2": "app:v2", "third-party/redis:7": "redis:7"}


def test_the_same_last_part_needs_the_one_before() -> None:
    found = names_apart(["a/x/app:v1", "b/x/app:v1", "x/app:v1", "c/other:v1"])
    assert list(found.values()) == ["a/x/app:v1", "b/x/app:v1", "x/app:v1", "other:v1"]


def test_words_that_most_names_begin_with_are_left_out() -> None:
    services = ["acme-platform-billing-api:v1", "acme-platform-billing-worker:v1", "acme-platform-search:v1"]
    found = names_apart([*(f"x/{name}" for name in services), "redis:7"])
    assert list(found.values()) == ["…billing-api:v1", "…billing-worker:v1", "…search:v1", "redis:7"]


def test_a_few_that_begin_alike_keep_their_names() -> None:
    assert list(names_apart(["my-app:1", "my-web:1"]).values()) == ["my-app:1", "my-web:1"]
    assert names_apart([]) == {}


@pytest.mark.parametrize(
    ("letters", "shown"),
    [
        (40, "notification-service:v1.2.0"),
        (27, "notification-service:v1.2.0"),
        (26, "notification-service"),
        (12, "notif…ervice"),
        (5, "no…ce"),
        (4, ""),
    ],
)
def test_what_there_is_room_for(letters: int, shown: str) -> None:
    assert fitted("notification-service:v1.2.0", letters) == shown


def test_two_long_names_that_begin_alike_are_cut_apart() -> None:
    assert fitted("notification-service:v1", 12) != fitted("notification-worker:v1", 12)
    assert fitted("3 more in team", 14) == "3 more in team"
