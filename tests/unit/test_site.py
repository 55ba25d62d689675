"""What the site says is what the program does: every key of the configuration, every error text, every variable."""

import re
from functools import cache
from pathlib import Path

import checks
import commands
import configuration
import hooks
import messages
import pytest
import seen
import yaml

from regwrap.cli.catalog import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])


@cache
def page(name: str) -> str:
    filled: str = hooks.filled((ROOT / "docs" / name).read_text(encoding="utf-8"))
    return filled


@pytest.mark.slow
def test_every_key_is_described_and_in_the_example() -> None:
    keys = configuration.all_keys()
    assert {(key.section, key.name) for key in keys} == {
        (section, name) for section, names in configuration.descriptions().items() for name in names
    }
    assert [key for key in keys if not key.about or not key.kind] == []
    example = (ROOT / "config.example.yaml").read_text()
    absent = [key for key in keys if not re.search(rf"^[# -]*{key.name}:", example, re.MULTILINE)]
    assert absent == []
    whole = page("configuration.md")
    assert [key.name for key in keys if f"| `{key.name}` | {key.kind} |" not in whole] == []
    assert [section for section in configuration.sections() if section and f"## {section}\n" not in whole] == []


def test_the_defaults_are_those_of_the_example() -> None:
    example = yaml.safe_load((ROOT / "config.example.yaml").read_text())
    for key in configuration.all_keys():
        if key.section in {"registries", "images", "signed"}:
            continue
        value = (example[key.section] if key.section else example)[key.name]
        shown = {None: "", False: "false", True: "true"}.get(value, f"{value}") if value != 1 else "1"
        assert (key.section, key.name, key.default) == (key.section, key.name, shown)


def test_every_variable_of_the_program_is_on_the_page() -> None:
    whole = page("configuration.md")
    assert [name for name in configuration.environment_variables() if f"`{name}`" not in whole] == []


@pytest.mark.exhaustive
def test_every_error_text_is_on_the_page() -> None:
    found = messages.all_messages()
    assert len(found) > 300
    whole = page("troubleshooting.md").replace("\\|", "|")
    texts = {" ".join(text.split()) for message in found for text in (message.text, message.todo)}
    assert [text for text in texts if text not in whole] == []


def test_what_registries_do_is_on_the_page_as_it_is_told() -> None:
    assert messages.answers_table() in (ROOT / "docs/troubleshooting.md").read_text(), (
        "put the table into docs/troubleshooting.md"
    )


@pytest.mark.exhaustive
def test_known_errors_are_found_where_they_are() -> None:
    """The reader of the source sees each way of saying an error."""
    found = {(message.module, message.text) for message in messages.all_messages()}
    assert found >= {
        ("regwrap.transfer.observe", "{name} has no {what}"),
        ("regwrap.lists.line", "the tag is missing after the colon"),
        ("regwrap.lists.line", "a destination has no digest; put it at the source"),
        ("regwrap.bundle.examine", "{name}: is not in the list"),
        ("regwrap.bundle.read", "the file is empty"),
        ("regwrap.storage.lock", "{root} is in use by another regwrap: {holder}"),
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
@pytest.mark.exhaustive
def test_a_page_says_nothing_that_the_program_does_not_know(path: Path) -> None:
    """Commands, options, exit codes and messages."""
    name = path.relative_to(ROOT / "docs").as_posix() if path.is_relative_to(ROOT / "docs") else path.name
    assert checks.unknown(name, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("```\nregwrap sink images.list\n```", "there is no command regwrap sink"),
        ("```\nregwrap -q list from-moon x  # comment\n```", "there is no command regwrap list from-moon"),
        (
            "```\nregwrap package l -o - | ssh x regwrap deploy - D \\\n  --hish\n```",
            "regwrap deploy has no option --hish",
        ),
        ("then `regwrap gc DIR --keap L`", "regwrap gc has no option --keap"),
        ("then `--keap L`, or `deploy --hash`", "no command has the option --keap"),
        ("it ends with exit code 5", "there is no exit code 5"),
        ("| it says | what to do |\n|---|---|\n| `has no fun at all` | play |", ""),
        ("| it says | |\n|---|---|\n| `the moon is full` | wait |", "regwrap does not say: the moon is full"),
        ("`skopeo copy --all`, `regwrap -q --config F sync l --dry-run` and exit code 143", ""),
    ],
)
@pytest.mark.exhaustive
def test_what_the_program_does_not_know_is_named(said: str, problem: str) -> None:
    assert checks.unknown("page.md", f"{said}\n") == ([problem] if problem else [])


@pytest.mark.slow
def test_each_command_has_a_page_with_its_options_and_examples() -> None:
    pages = commands.pages()
    assert len(pages) == len(COMMANDS)
    sync = pages["commands/sync.md"]
    assert "| `--shard K/N` | Process only part K of N parts of the list. |" in sync
    assert "regwrap sync images.list --source cicd --dry-run" in sync
    assert "(../commands.md#sync-lock-release)" in sync


@pytest.mark.exhaustive
def test_what_one_sees_at_3_am_is_a_message_with_what_to_do() -> None:
    whole = page("days/at-3-am.md")
    assert whole == seen.with_tables(whole), "make fmt writes the tables of docs/days/at-3-am.md anew"
    rows = re.findall(r"^\| (`.*) \| (.*) \|$", whole, re.MULTILINE)
    assert len(rows) > 40
    assert [said for said, todo in rows if not re.search(r"[a-z]{3}", re.sub(r"{[^}]*}", "", todo))] == []
    with pytest.raises(ValueError, match="no message has 'the moon'"):
        seen.with_tables("<!-- seen:\nthe moon\n-->\n")


@pytest.mark.parametrize("kind", ["messages", "configuration", "file"])
def test_no_page_asks_for_what_is_gone(kind: str) -> None:
    for path in PAGES:
        for about in re.findall(rf"^<!-- {kind}: *(.*?) *-->$", path.read_text(), re.MULTILINE):
            if kind == "messages":
                gone = [n for n in about.split() if n != "*" and not _is_module(n)]
                assert gone == [], f"{path.name} names modules that are gone: {gone}"
            elif kind == "configuration":
                assert about.strip("-") in configuration.sections()
            else:
                assert (ROOT / about).is_file()


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_every_module_that_a_page_names_is_there() -> None:
    """`room/module` in backquotes, as the pages on the source say it."""
    rooms = {path.name for path in (ROOT / "regwrap").iterdir() if (path / "__init__.py").is_file()}
    for path in PAGES:
        for name in re.findall(r"`((?:\w+/)+\w*)(?:\.py)?`", path.read_text()):
            if name.partition("/")[0] in rooms:
                assert _is_module(f"regwrap.{name.strip('/').replace('/', '.')}"), f"{path.name}: {name}"


def test_the_decisions_are_numbered_listed_and_complete() -> None:
    directory = ROOT / "docs/decisions"
    pages = sorted(path for path in directory.glob("*.md") if path.name != "index.md")
    assert [int(path.name[:2]) for path in pages] == list(range(1, len(pages) + 1))
    index = (directory / "index.md").read_text()
    for path in pages:
        text = path.read_text()
        title = re.match(rf"# {path.name[:2]}\. (.+)\n", text)
        assert title, path.name
        assert f"- [{path.name[:2]} {title[1]}]({path.name})\n" in index
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequence"], path.name


def rooms_of_the_page() -> dict[str, str]:
    """By its name what each room may import, as the table says it."""
    table = (ROOT / "docs/ARCHITECTURE.md").read_text().partition("## Rooms")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)/` \|[^|]*\| ([^|]*) \|", table, re.MULTILINE))


@pytest.mark.slow
def test_the_table_of_rooms_is_true() -> None:
    """Each room is in it, and imports only what it may; "all below" is import-linter's business."""
    rooms = rooms_of_the_page()
    assert set(rooms) == {path.name for path in (ROOT / "regwrap").iterdir() if (path / "__init__.py").is_file()}
    for room, allowed in rooms.items():
        source = "\n".join(path.read_text() for path in (ROOT / "regwrap" / room).rglob("*.py"))
        used = set(re.findall(r"^ *(?:from|import) regwrap\.(\w+)", source, re.MULTILINE)) - {room}
        if "below" not in allowed:
            assert used <= set(re.findall(r"\w+", allowed)), f"docs/ARCHITECTURE.md: {room} imports {used}"
