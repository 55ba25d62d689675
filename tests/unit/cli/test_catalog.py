"""The catalog of commands fits what there is, and only what is typed is imported."""

import pytest
from typer.core import TyperGroup
from typer.main import get_group

from regwrap.cli.app import every_word, make_app, typed_words
from regwrap.cli.catalog import COMMANDS, FAMILIES, GROUPS


@pytest.mark.slow
def test_every_entry_is_a_command_with_options_of_its_own() -> None:
    app = get_group(make_app(every_word()))
    for entry in COMMANDS:
        command = app.commands[entry.words[0]]
        if isinstance(command, TyperGroup):
            command = command.commands[entry.words[1]]
        assert command.params, entry.name


def test_every_entry_says_what_it_is_for_in_a_group_that_is_shown() -> None:
    assert list(dict.fromkeys(entry.group for entry in COMMANDS)) == list(GROUPS)
    assert {entry.words[0] for entry in COMMANDS if len(entry.words) > 1} == set(FAMILIES)
    for entry in COMMANDS:
        assert len(entry.examples) == 2, entry.name
        assert len(entry.summary) <= 68, entry.name  # a line of the help
        assert entry.help.startswith(entry.summary)


def test_commands_that_are_not_typed_are_names_alone() -> None:
    app = get_group(make_app({"inspect"}))
    assert app.commands["inspect"].params
    assert not app.commands["sync"].params


@pytest.mark.parametrize("variable", ["COMP_WORDS", "_TYPER_COMPLETE_ARGS"])
def test_the_line_that_a_shell_completes_counts_as_typed_also_with_an_open_quote(variable: str) -> None:
    assert typed_words(["x"], {variable: "regwrap 'sync' --source"}) == {"x", "regwrap", "sync", "--source"}
    assert "sync" in typed_words([], {variable: "regwrap sync 'a b"})
