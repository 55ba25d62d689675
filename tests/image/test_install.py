"""Installed as a user installs it: the wheel and the sdist, by pipx; its manual page, and completions in three
shells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from regwrap import __version__
from tests.image.conftest import ROOT

pytestmark = pytest.mark.tools
_SHELLS: Final = ("bash", "zsh", "fish")
_SHARED: Final = (
    "bash-completion/completions/regwrap",
    "fish/vendor_completions.d/regwrap.fish",
    "man/man1/regwrap.1",
    "zsh/site-functions/_regwrap",
)


def run(command: list[str | Path], cwd: Path, **variables: str) -> str:
    """stdout of a command that succeeds, with a home of its own and nothing of this test's Python."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**environment, "HOME": f"{cwd}", **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dist/ with a wheel and an sdist, built of this tree's files by a build frontend."""
    place = tmp_path_factory.mktemp("build")
    run([sys.executable, "-m", "build", "--outdir", place / "dist", ROOT], place)
    return place / "dist"


@pytest.fixture(scope="module")
def installed(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of the virtual environment that pipx has made for the wheel."""
    place = tmp_path_factory.mktemp("installed")
    (wheel,) = distributions.glob("*.whl")
    places = {"PIPX_HOME": f"{place}/pipx", "PIPX_BIN_DIR": f"{place}/bin"}
    run(["pipx", "install", "--python", sys.executable, wheel], place, **places)
    assert (place / "bin/regwrap").resolve() == place / "pipx/venvs/regwrap/bin/regwrap"
    return place / "pipx/venvs/regwrap/bin"


def test_what_pipx_has_installed_works(installed: Path, tmp_path: Path) -> None:
    regwrap = installed / "regwrap"
    assert run([regwrap, "--version"], tmp_path).startswith(f"regwrap {__version__}\n")
    (tmp_path / "images.list").write_text("")
    run([regwrap, "release", "images.list", "-o", "empty.tar"], tmp_path)
    run([regwrap, "verify", "empty.tar"], tmp_path)
    for name in _SHARED:
        assert (installed.parent / "share" / name).stat().st_size, name


def test_the_wheel_has_the_program_and_nothing_else(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path, "zip")
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"regwrap"}
    assert (tmp_path / "regwrap/py.typed").is_file(), "who imports it has its types"
    assert "Requires-Python: >=3.11" in next(tmp_path.glob("*.dist-info/METADATA")).read_text()
    (beside,) = tmp_path.glob("*.data")
    files = sorted(path.relative_to(beside).as_posix() for path in beside.rglob("*") if path.is_file())
    assert files == [f"data/share/{name}" for name in _SHARED]


def test_the_sdist_holds_what_a_checkout_does_and_makes_the_same_wheel(distributions: Path, tmp_path: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    run(["tar", "-xf", sdist], tmp_path)  # Python 3.13 wants to be told a filter, which 3.11.2 does not know
    (tree,) = tmp_path.iterdir()
    for name in (
        "Makefile",
        "README.md",
        "hatch_build.py",
        "container/Containerfile",
        "examples/regwrap.mk",
        "tests/conftest.py",
    ):
        assert (tree / name).is_file(), name
    wheels = tmp_path / "wheels"
    quickly = ("--quiet", "--no-deps", "--no-build-isolation")  # the other one was made of the sdist, in isolation
    run([sys.executable, "-m", "pip", "wheel", *quickly, "--wheel-dir", wheels, ROOT], tmp_path)
    (again,), (wheel,) = wheels.glob("*.whl"), distributions.glob("*.whl")
    assert again.read_bytes() == wheel.read_bytes()


def test_man_shows_the_installed_page(installed: Path, tmp_path: Path) -> None:
    page = run(["mandoc", "-Tascii", installed.parent / "share/man/man1/regwrap.1"], tmp_path)
    assert f"regwrap {__version__}" in page
    assert "images.list" in page


def completed(shell: str, installed: Path, place: Path, typed: str) -> str:
    """What a shell offers for `typed`, by the file that came with the program."""
    share = installed.parent / "share"
    last = len(typed.split(" ")) - 1
    scripts = {
        "bash": f"""
            . {share}/bash-completion/completions/regwrap
            COMP_WORDS=({typed}) COMP_CWORD={last}
            [ ${{#COMP_WORDS[@]}} -gt {last} ] || COMP_WORDS+=("")
            _regwrap_completion regwrap
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """,
        "zsh": f"""
            compdef() {{ : }}
            _arguments() {{ print -l -- "$@" }}
            _describe() {{ print -l -- "$@"; print -l -- "${{(@P)2}}" }}
            words=({typed} "") CURRENT={last + 1}
            fpath=({share}/zsh/site-functions $fpath)
            autoload -Uz _regwrap
            _regwrap
        """,
        "fish": f"""
            source {share}/fish/vendor_completions.d/regwrap.fish
            complete --do-complete "{typed}"
        """,
    }
    path = f"{installed}:{os.environ['PATH']}"
    return run([shell, "-c", scripts[shell]], place, PATH=path, XDG_CONFIG_HOME=f"{place}/config")


def test_zsh_finds_the_file_by_itself(installed: Path, tmp_path: Path) -> None:
    functions = installed.parent / "share/zsh/site-functions"
    found = f"fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D; print $_comps[regwrap]"
    assert run(["zsh", "-f", "-c", found], tmp_path) == "_regwrap\n"


@pytest.mark.parametrize("shell", _SHELLS)
def test_completion_offers_commands_and_options(shell: str, installed: Path, tmp_path: Path) -> None:
    commands = completed(shell, installed, tmp_path, "regwrap pa")
    assert "package" in commands
    assert "deploy" not in commands
    options = completed(shell, installed, tmp_path, "regwrap package --strat")
    assert "--strategy" in options
    assert "--output" not in options
