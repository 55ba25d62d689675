"""The strict reader: nothing is converted, and a message says where, what was expected and what is there."""

import re
from collections.abc import Callable

import pytest

from regwrap.core.fields import (
    a_list,
    a_switch,
    a_text,
    an_integer,
    an_object,
    field,
    json_object,
    json_value,
    list_of,
    or_none,
    shown,
)


@pytest.mark.parametrize(
    ("parse", "value", "message"),
    [
        (a_text, 5, "expected a string, got 5"),
        (a_text, None, "expected a string, got nothing"),
        (a_text, {}, "expected a string, got a mapping"),
        (a_switch, 1, "expected true or false, got 1"),
        (a_list, "ab", 'expected a list, got "ab"'),
        (an_object, [], "expected an object, got a list"),
        (an_integer(1, 9), True, "expected a whole number from 1 to 9, got true"),
        (an_integer(1, 9), 10, "expected a whole number from 1 to 9, got 10"),
        (an_integer(1, 9), 5.0, "expected a whole number from 1 to 9, got 5.0"),
        (list_of(a_text), ["a", 1], "expected a string, got 1"),
        (or_none(a_text), 1, "expected a string, got 1"),
        (an_integer(1, 9), 10**30, "got a very large number"),
        (an_integer(1, 9), "x" * 100, f'got "{"x" * 60}..."'),
        (an_integer(1, 9), "a\x1b[2Jü", r'got "a\u001b[2J\u00fc"'),
    ],
)
def test_value_of_another_kind_is_refused_with_what_it_is(
    parse: Callable[[object], object], value: object, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"[" * 100_000, "^too deeply nested$"),
        (b'{"a":' * 100_000, "^too deeply nested$"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"a": NaN}', "^NaN is not JSON$"),
        (b'{"a": -Infinity}', "^-Infinity is not JSON$"),
        (b'{"a": "\xe9"}', "'utf-8' codec can't decode"),
        (b"\xef\xbb\xbf{}", "Unexpected UTF-8 BOM"),
        ("{}".encode("utf-16"), "'utf-8' codec can't decode"),
        (b"[]", "^expected an object, got a list$"),
        (b"null", "^expected an object, got nothing$"),
        ('"x"', '^expected an object, got "x"$'),
    ],
)
def test_what_is_no_object_is_refused_with_what_it_is(raw: bytes | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        json_object(raw)


def test_a_document_is_read_as_it_is() -> None:
    assert json_object('{"a": "ü", "b": [1, 2.5, null]}'.encode()) == {"a": "ü", "b": [1, 2.5, None]}
    assert (json_value("[]"), json_value(b"null")) == ([], None)
    assert json_value('{"a": 1, "a": 2}', lambda pairs: pairs) == [("a", 1), ("a", 2)]


def test_values_of_their_kind_are_given_as_they_are() -> None:
    document = {"name": "a", "sizes": [1, 2], "off": False}
    assert field(document, "name", a_text) == "a"
    assert field(document, "sizes", list_of(an_integer(0, 9))) == (1, 2)
    assert field(document, "off", a_switch) is False
    assert field(document, "absent", or_none(a_text)) is None
    assert field(document, "absent", a_text, "else") == "else"


def test_message_leads_to_the_key() -> None:
    with pytest.raises(ValueError, match=r"^outer: inner: expected a string, got 1$"):
        field({"outer": {"inner": 1}}, "outer", lambda value: field(an_object(value), "inner", a_text))


@pytest.mark.parametrize(("value", "fits"), [(0, False), (1, True), (9, True), (10, False)])
def test_a_whole_number_may_be_the_first_and_the_last(value: int, *, fits: bool) -> None:
    if fits:
        assert an_integer(1, 9)(value) == value
    else:
        with pytest.raises(ValueError, match="expected a whole number from 1 to 9"):
            an_integer(1, 9)(value)


def test_a_text_of_sixty_characters_is_shown_whole() -> None:
    assert shown("x" * 60) == f'"{"x" * 60}"'
    assert shown("x" * 61) == f'"{"x" * 60}..."'
    assert (shown(10**20 - 1), shown(-(10**20)), shown(1.5)) == ("9" * 20, "a very large number", "1.5")
    assert (shown(b"x"), shown(None), shown(True), shown({1})) == ("binary data", "nothing", "true", "a set")
