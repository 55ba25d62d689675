"""YAML and JSON from people and programs: values, nodes with their lines, and what is odd, each with its place."""

import pytest
import yaml

from regwrap.core.errors import UsageError
from regwrap.lists.yaml_nodes import Mapping, Node, Sequence
from regwrap.lists.yaml_read import Oddity, parse_documents, parse_value, read_documents

pytestmark = pytest.mark.usefixtures("parser")


def plain(node: Node) -> object:
    """Its texts, without lines."""
    if isinstance(node, Mapping):
        return {f"{key.text}": plain(value) for key, value in node.pairs}
    return [plain(item) for item in node.items] if isinstance(node, Sequence) else node.text


def documents(text: str) -> list[object]:
    found, odd = read_documents(text)
    assert odd == []
    return [plain(node) for node in found]


def oddities(text: str, before: int = 0) -> list[Oddity]:
    return read_documents(text, before)[1]


@pytest.mark.parametrize(
    ("text", "value"),
    [("a: 1\nb: [x, 1.5, null]\n", {"a": 1, "b": ["x", 1.5, None]}), ("", None), ("# nothing\n", None)],
)
def test_a_document_is_its_values(text: str, value: object) -> None:
    assert parse_value(text, "config.yaml") == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n---\nb: 2\n", r"config\.yaml:2:1: expected a single document"),
        ("when: 2001-99-99\n", r"config\.yaml: a value cannot be read: month must be in"),
        ("a: 1\nb: [\n", r"config\.yaml:3:1: "),
        ("a: 1\na: 2\n", r'config\.yaml:2:1: the key "a" stands twice, first in line 1'),
        ("a: !python/object x\n", r'config\.yaml:1:4: the tag "!python/object" is not supported'),
        ("a: !!python/name:os.system x\n", r"config\.yaml:1:4: the tag .* is not supported"),
        ("a: !!seq {b: 1}\n", r"config\.yaml:1:4: the tag .* is not supported"),
        ("a: !!map [b]\n", r"config\.yaml:1:4: the tag .* is not supported"),
        ("a: *b\n", r"config\.yaml:1:4: the alias \*b has no anchor before it"),
        ("a:\n  <<: b\n", r"config\.yaml:2:7: << merges mappings, and this is none"),
        ("? [a]\n: 1\n", r"config\.yaml:1:3: a key must be a string"),
        ("{'': 1}", r"config\.yaml:1:2: a key must be a string"),
        ("a: \0", r"config\.yaml:1:4: a control character"),
        ("a: 1\nb: \a", r"config\.yaml:2:4: a control character"),
        ("\nb: \a", r"config\.yaml:2:4: a control character"),
        ("a: 1\nb: !x y\n", r'config\.yaml:2:4: the tag "!x" is not supported'),
        ("a: &x 1\n---\nb: *x\n", r"config\.yaml:3:4: the alias \*x has no anchor before it"),
        ("a: 1" + ":00" * 200 + ".5\n", r"config\.yaml: a value cannot be read: int too large"),
        ("a: !!int " + "x" * 500, r"config\.yaml: a value cannot be read: .{163}$"),
    ],
)
def test_what_is_odd_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}"):
        parse_value(text, "config.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: !!str 1", {"a": "1"}),
        ("a: !!null x", {"a": None}),
        ("a: ! x", {"a": "x"}),
        ("a: !!map {b: 1}", {"a": {"b": 1}}),
    ],
)
def test_the_tags_of_yaml_itself_are_understood(text: str, value: object) -> None:
    assert parse_value(text, "config.yaml") == value


def test_a_text_is_as_it_was_written_and_null_is_nothing() -> None:
    (node,) = parse_documents("[1.10, 0x1f, yes, '', '~', ~, null, !!str null, !!null x, !!str 1.10]", "f")
    assert plain(node) == ["1.10", "0x1f", "yes", "", "~", None, None, "null", None, "1.10"]


def test_depth_has_a_bound_and_no_end_of_the_stack() -> None:
    assert len(parse_documents("[" * 200 + "]" * 200, "f")) == 1
    with pytest.raises(UsageError, match=r"f:1:201: too deeply nested"):
        parse_documents("[" * 201 + "]" * 201, "f")
    with pytest.raises(UsageError, match=r"f:2:201: too deeply nested"):
        parse_documents("\n" + "[" * 201 + "]" * 201, "f")
    assert [odd.text.partition(";")[0] for odd in oddities("[\n" * 1500)] == ["too deeply nested"]


def test_an_error_of_the_parser_without_a_place_is_one_of_the_whole_document(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(yaml.SafeLoader):
        def get_event(self) -> yaml.Event:
            raise yaml.MarkedYAMLError(problem="x" * 300)

    monkeypatch.setattr(yaml, "CSafeLoader", Failing, raising=False)
    said = f"{'x' * 200}; this document is left out"
    assert oddities("a: 1\n---\nb: 1\n", before=7) == [Oddity(8, 1, said), Oddity(9, 1, said)]


@pytest.mark.parametrize(("length", "shown"), [(60, "k" * 60), (61, "k" * 60 + "...")])
def test_a_key_of_sixty_characters_is_shown_whole(length: int, shown: str) -> None:
    (odd,) = oddities(f"{'k' * length}: 1\n{'k' * length}: 2\n")
    assert odd.text == f'the key "{shown}" stands twice, first in line 1'


def test_a_quoted_key_that_no_terminal_shows_is_escaped() -> None:
    assert [odd.text for odd in oddities("{schlüssel: 1, schlüssel: 2}")] == [
        'the key "schlüssel" stands twice, first in line 1'
    ]
    (odd,) = oddities('{"a\\u202e": 1, "a\\u202e": 2}')
    assert '"a\\u202e"' in odd.text


# --- several documents in a file


def test_json_documents_follow_each_other_as_tools_stream_them() -> None:
    assert documents('{"a": "x\ty"}\n{"b": [1]}\n\n[2]') == [{"a": "x y"}, {"b": ["1"]}, ["2"]]
    found, _odd = read_documents('\n{"a": 1}\n\n{"b": 1}')
    assert [node.line for node in found] == [2, 4]


def test_columns_of_json_are_those_of_the_file() -> None:
    assert oddities('\n  {"a": 1, "a": 2}', before=5) == [
        Oddity(7, 12, 'the key "a" stands twice, first in line 7', is_harmless=True)
    ]


def test_a_broken_document_hides_no_other_and_has_its_line() -> None:
    found, odd = read_documents("a: 1\n---\nb: [\n---\nc: 3\n")
    assert [plain(node) for node in found] == [{"a": "1"}, {"c": "3"}]
    assert [(item.line, "is left out" in item.text) for item in odd] == [(4, True)]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a: b\nc: {{ .Values.x }}\n", 2, 4),
        ("a: 1\n{{- if .x }}\nb: 2\n{{- end }}\n", 2, 1),
        ("a:\n  - {{ x }}\nz: [\n", 2, 5),
        ("x: 1\n---\nb:\n  c: {{ y }}\n d: [\n", 4, 6),
        ("x: 1\n---\nb:\n  - [{{ y }}]\n", 4, 6),
        ("args:\n  - x\n  - [{{x}}]", 3, 6),
        ("\nc: {{ y }}\nb: \a\n", 2, 4),
    ],
)
def test_a_template_is_called_one_where_it_begins(text: str, line: int, column: int) -> None:
    (odd,) = oddities(text)
    assert (odd.line, odd.column) == (line, column)
    assert odd.text.startswith("is a template ({{): render it first")


def test_a_file_that_is_broken_and_no_template_is_not_called_one() -> None:
    (odd,) = oddities('a: "{{ x }}"\nb: [\n')
    assert "template" not in odd.text


def test_aliases_stand_for_their_anchors_up_to_a_bound() -> None:
    assert documents("a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2}\ne: {<<: [*x]}\n") == [
        {"a": {"b": "1"}, "c": {"b": "1"}, "d": {"b": "2"}, "e": {"b": "1"}}
    ]
    assert documents("a: &x 1\nb: *x\n") == [{"a": "1", "b": "1"}]
    assert documents("- &x {b: 1}\n- &y {b: 2, c: 3}\n- <<: [*x, *y]\n") == [
        [{"b": "1"}, {"b": "2", "c": "3"}, {"b": "1", "c": "3"}]
    ]
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 9)]
    assert "aliases unfold to more than 10 times the file" in oddities("\n".join(lines))[0].text
    assert oddities("a: &x 1\n---\nb: *x\n")[0].text == "the alias *x has no anchor before it"


def test_of_an_anchor_only_what_is_in_it_counts_against_the_bound() -> None:
    assert oddities(f"a: &a [{'x' * 200}]\nb: [{', '.join(['*a'] * 10)}]\nc: &c [y]\nd: *c\n") == []


def test_a_key_that_is_a_list_is_left_out_and_told_and_hides_no_other() -> None:
    found, odd = read_documents("? [a]\n: 1\nb: 2\n")
    assert [plain(node) for node in found] == [{"b": "2"}]
    assert odd == [Oddity(1, 3, "a key must be a string; this one is left out")]


def test_a_file_with_more_values_than_memory_is_for_is_refused_where_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values take a hundred times the memory that their bytes do."""
    monkeypatch.setattr("regwrap.lists.yaml_read._MAX_VALUES", 1000)
    found, odd = read_documents("a: 1\n---\n[" + "1," * 1000 + "]\n---\nb: 1\n")
    assert [plain(node) for node in found] == [{"a": "1"}]
    assert [item.text.partition(",")[0] for item in odd] == ["the file has more than 1"]
    with pytest.raises(UsageError, match=r"x:1:\d+: the file has more than 1,000 values, split it"):
        parse_documents("[" + "1," * 1000 + "]", "x")


@pytest.mark.parametrize("most", range(1, 24))
def test_no_document_is_lost_in_silence_wherever_the_values_end(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regwrap.lists.yaml_read._MAX_VALUES", most)
    found, odd = read_documents("a: [\n---\nb: 1\n")
    assert found or any(item.text.startswith(f"the file has more than {most} values") for item in odd)


def test_the_last_value_that_a_file_may_have_is_read_and_the_next_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a document and where a collection begins and ends counts as well."""
    monkeypatch.setattr("regwrap.lists.yaml_read._MAX_VALUES", 15)
    assert len(parse_documents("a:\n  - [1, 1, 1, 1]", "x")) == 1
    monkeypatch.setattr("regwrap.lists.yaml_read._MAX_VALUES", 10)
    with pytest.raises(UsageError, match=r"^x:2:18: the file has more than 10 values, split it"):
        parse_documents("a:\n  - [1, 1, 1, 1, 1, 1]", "x")
