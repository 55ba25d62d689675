"""The first configuration is one that is read, and says what was answered."""

import re
from pathlib import Path

import pytest

from regwrap.config.load import Config, Flags, load_config
from regwrap.config.locations import listed_location
from regwrap.config.starter import FIRST_LIST, configuration_text, is_directory
from regwrap.core.errors import UsageError
from regwrap.lists.imagelist import parse_images


def loaded(tmp_path: Path, text: str) -> Config:
    (tmp_path / "regwrap.yaml").write_text(text, encoding="utf-8")
    return load_config(Flags(), environ={"HOME": f"{tmp_path}/home"}, cwd=tmp_path)


def test_registry_and_directory(tmp_path: Path) -> None:
    config = loaded(tmp_path, configuration_text("http://r.example:5000", './a "b"'))
    assert config.source
    assert config.source.registry
    assert (config.source.registry.host, config.source.registry.plain_http) == ("r.example:5000", True)
    assert config.archive.storage == tmp_path / 'a "b"'


def test_nothing_answered_is_the_default(tmp_path: Path) -> None:
    config = loaded(tmp_path, configuration_text("", ""))
    assert config.source is None
    assert config.archive.storage == tmp_path / "home/.local/share/regwrap/archive"


def test_what_stands_in_comments_is_right_too(tmp_path: Path) -> None:
    """Each option that the file offers is taken when its comment sign is removed."""
    text = configuration_text("", "")
    commented = loaded(tmp_path, text.replace("# source: ", "source: ").replace("# archive: ", "archive: "))
    assert commented.source
    assert commented.source.name == "cicd.example.com"
    assert commented.archive.storage == tmp_path / "archive"
    tail = text.partition("archive: ./archive")[2]
    options = re.findall(r"^# (\w+:(?: \S+)?| +\S.*)$", tail, flags=re.MULTILINE)
    config = loaded(tmp_path, "\n".join(options))
    assert (config.jobs, config.scratch, config.rewrite.keep_host) == (8, Path("/var/tmp"), True)
    assert (config.rewrite.prefix, config.rules[0].newest) == ("mirror/", 3)


def test_the_first_list_has_no_image_yet_but_shows_lines_that_are_read() -> None:
    assert parse_images(FIRST_LIST.encode(), "images.list").entries == ()
    shown = [line.removeprefix("# ") for line in FIRST_LIST.splitlines() if ":" in line and "`" not in line]
    assert len(parse_images("\n".join(shown).encode(), "images.list").entries) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [("./a", True), ("/a", True), ("~/a", True), ("a/b", True), ("r.example", False), ("http://r.example", False)],
)
def test_paths_and_hosts_are_told_apart(text: str, expected: bool) -> None:
    assert is_directory(text) is expected


def test_what_is_listed_by_name_host_or_directory(tmp_path: Path) -> None:
    config = loaded(tmp_path, "registries: {cicd: {url: r.example}, kept: {storage: ./kept}}")
    (tmp_path / "there").mkdir()

    def place(text: str) -> tuple[str, str]:
        found, prefix = listed_location(text, config, base=tmp_path, home=tmp_path)
        return f"{found.storage or (found.registry and found.registry.host)}", prefix

    assert place("cicd/team/app") == ("r.example", "team/app")
    assert place("kept") == (f"{tmp_path}/kept", "")
    assert place("127.0.0.1:5000/team/") == ("127.0.0.1:5000", "team")
    assert place("there") == (f"{tmp_path}/there", "")
    assert place("./a/b") == (f"{tmp_path}/a/b", "")
    for wrong in ("cicd/Team", "nowhere"):
        with pytest.raises(UsageError):
            place(wrong)
