"""The guard of conftest.py does what it says."""

import subprocess
import tempfile
from pathlib import Path
from subprocess import Popen

import pytest

from regwrap.tools.launcher import ShLauncher
from regwrap.tools.runner import Command, Runner, Tool
from tests.fakes import Answer, Scripted


def test_the_real_launcher_starts_nothing_in_a_unit_test() -> None:
    with tempfile.TemporaryFile() as output, pytest.raises(AssertionError, match="without the marker"):
        ShLauncher().start(("/bin/true",), env={}, output=(output, output), inherit=(), stdin=b"")


def test_the_real_runner_starts_nothing_in_a_unit_test(real_runner: Runner, scripted: Scripted) -> None:
    found = Runner(real_runner.launcher, scratch=real_runner.scratch, search_path=scripted.runner.search_path)
    with pytest.raises(AssertionError, match="without the marker"):
        found.run(Command(tool=Tool.TAR, args=("--version",)))


@pytest.mark.parametrize("start", [subprocess.Popen, Popen])
def test_popen_starts_nothing_in_a_unit_test(start: type[Popen[bytes]]) -> None:
    with pytest.raises(AssertionError, match="without the marker"):
        start(["/bin/true"])


def test_subprocess_run_starts_nothing_in_a_unit_test() -> None:
    with pytest.raises(AssertionError, match="without the marker"):
        subprocess.run(["/bin/true"], check=True)


@pytest.mark.exhaustive
@pytest.mark.tools("tar")
def test_a_marked_test_may_start_programs(real_runner: Runner) -> None:
    assert b"GNU tar" in real_runner.run(Command(tool=Tool.TAR, args=("--version",))).stdout


def test_the_fake_refuses_what_its_script_does_not_have(scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("tar", "--version")))
    with pytest.raises(AssertionError, match="no answer for"):
        scripted.runner.run(Command(tool=Tool.TAR, args=("--help",)))
    with pytest.raises(AssertionError, match="never asked for"):
        scripted.launcher.assert_all_used()


def test_the_fake_answers_once_unless_told_to_repeat(scripted: Scripted) -> None:
    once, always = Command(tool=Tool.TAR, args=("once",)), Command(tool=Tool.TAR, args=("always",))
    scripted.launcher.answers += [Answer(when=("tar", "once")), Answer(when=("tar", "always"), repeats=True)]
    for command in (always, once, always):
        scripted.runner.run(command)
    with pytest.raises(AssertionError, match="no answer for"):
        scripted.runner.run(once)
    scripted.launcher.assert_all_used()


def test_the_fake_runs_effects_with_the_bare_argv(scripted: Scripted, tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []
    scripted.launcher.answers.append(Answer(when=lambda argv: argv[0] == "umoci", effect=seen.append))
    scripted.runner.run(Command(tool=Tool.UMOCI, args=("init", f"{tmp_path}")))
    assert seen == scripted.launcher.argvs == [("umoci", "init", f"{tmp_path}")]
