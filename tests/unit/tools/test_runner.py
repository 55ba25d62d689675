"""The Runner's policy above its seam: argv, environment, judging, limits, redaction. No process is started."""

import os
import signal
from pathlib import Path

import pytest

from regwrap.core.errors import ExitCode, ToolError, UsageError
from regwrap.tools.launcher import ShLauncher
from regwrap.tools.runner import Command, Runner, Tool, last_lines, redacted
from tests.fakes import Answer, Scripted, Started


def test_a_result_has_all_that_the_program_said(scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("tar",), stdout=b"\x00\xff\r\n", stderr=b"a \xff warning\n"))
    command = Command(tool=Tool.TAR, args=("--list",))
    result = scripted.runner.run(command)
    assert (result.command, result.exit_code, result.stdout) == (command, 0, b"\x00\xff\r\n")
    assert result.stderr == "a � warning\n"
    assert result.stopped == ""


def test_the_environment_is_built_from_nothing(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAR_OPTIONS", "--bogus")
    scripted.launcher.answers.append(Answer(when=("tar",)))
    scripted.runner.run(Command(tool=Tool.TAR, args=("x",), env=(("HOME", "/h"), ("LC_ALL", "C.UTF-8")), inherit=(7,)))
    path = os.pathsep.join((scripted.runner.search_path, "/usr/local/sbin", "/usr/sbin", "/sbin"))
    expected = Started(("tar", "x"), {"PATH": path, "LC_ALL": "C.UTF-8", "HOME": "/h"}, (7,))
    assert scripted.launcher.started == [expected]


def test_programs_come_from_the_search_path(scripted: Scripted) -> None:
    assert scripted.runner.which(Tool.UMOCI) == f"{scripted.runner.search_path}/umoci"


def test_a_missing_program_is_the_users_to_install(tmp_path: Path) -> None:
    runner = Runner(ShLauncher(), scratch=tmp_path, search_path=os.fspath(tmp_path))
    with pytest.raises(UsageError, match="is not installed") as raised:
        runner.run(Command(tool=Tool.SKOPEO, args=()))
    assert "regwrap doctor" in raised.value.hint
    assert raised.value.exit_code is ExitCode.USAGE


def test_a_bad_exit_code_is_an_error_that_will_not_pass(scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("tar",), exit_code=2, stderr=b"first\nlast line\n"))
    with pytest.raises(ToolError) as raised:
        scripted.runner.run(Command(tool=Tool.TAR, args=("x",)))
    assert raised.value.message == "tar failed with exit code 2"
    assert raised.value.detail == "first\nlast line"
    assert not raised.value.transient


def test_an_error_of_a_silent_program_shows_the_command(scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("tar",), exit_code=2))
    with pytest.raises(ToolError) as raised:
        scripted.runner.run(Command(tool=Tool.TAR, args=("a b", "hush"), secrets=("hush",)))
    assert raised.value.detail == "tar 'a b' '***'"


def test_other_exit_codes_may_be_right(scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("tar",), exit_code=1))
    assert scripted.runner.run(Command(tool=Tool.TAR, args=(), ok_codes=(0, 1))).exit_code == 1


def test_death_by_signal_is_transient(scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",), exit_code=-signal.SIGSEGV, stderr=b"boom"))
    with pytest.raises(ToolError, match="skopeo was terminated by signal 11: boom") as raised:
        scripted.runner.run(Command(tool=Tool.SKOPEO, args=()))
    assert raised.value.transient


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (Command(tool=Tool.SKOPEO, args=(), timeout=0.03), "skopeo was not done after 0.03 s and was stopped"),
        (Command(tool=Tool.SKOPEO, args=(), stall=0.03), "skopeo made no progress for 0.03 s and was stopped"),
    ],
)
def test_a_limit_ends_the_program_and_is_transient(scripted: Scripted, command: Command, text: str) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",), hangs=True, exit_code=-9, stderr=b"said"))
    with pytest.raises(ToolError) as raised:
        scripted.runner.run(command)
    assert (raised.value.message, raised.value.detail, raised.value.transient) == (text, "said", True)


def test_nothing_starts_once_the_run_is_being_stopped(scripted: Scripted) -> None:
    scripted.runner.stopping.set()
    with pytest.raises(ToolError, match="is stopping") as raised:
        scripted.runner.run(Command(tool=Tool.TAR, args=()))
    assert not raised.value.transient
    assert scripted.launcher.started == []


def test_what_runs_is_ended_once_the_run_is_being_stopped(scripted: Scripted) -> None:
    def stop(_argv: tuple[str, ...]) -> None:
        scripted.runner.stopping.set()

    scripted.launcher.answers.append(Answer(when=("tar",), hangs=True, exit_code=-15, effect=stop))
    with pytest.raises(ToolError, match="was stopped: regwrap is stopping") as raised:
        scripted.runner.run(Command(tool=Tool.TAR, args=()))
    assert not raised.value.transient


def test_the_log_has_each_command_redacted(scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("skopeo",), repeats=True))
    scripted.runner.run(Command(tool=Tool.SKOPEO, args=("copy", "a b", "--creds=u:hush"), secrets=("u:hush", "")))
    assert scripted.log == ["skopeo copy 'a b' '--creds=***'"]


@pytest.mark.parametrize("secret", ["hush", "it's", 'a "b" c', "$x\\y", "zwölf"])
def test_a_secret_is_redacted_whatever_is_in_it(scripted: Scripted, secret: str) -> None:
    command = Command(tool=Tool.SKOPEO, args=(f"--creds=u:{secret}",), secrets=(secret,))
    assert command.shown == "skopeo '--creds=u:***'"
    scripted.launcher.answers.append(Answer(when=("skopeo",), exit_code=1, stderr=f"no {secret}, no".encode()))
    with pytest.raises(ToolError) as raised:
        scripted.runner.run(command)
    assert raised.value.detail == "no ***, no"


def test_of_two_secrets_the_longer_is_redacted_whole() -> None:
    assert redacted("abc abcdef", ("abc", "abcdef")) == "*** ***"


def test_a_long_story_keeps_its_end() -> None:
    assert last_lines("x" * 10_000 + "\nthe reason\n").endswith("\nthe reason")
    assert len(last_lines("x" * 10_000)) == 4000


def test_a_server_lives_for_the_block(scripted: Scripted, tmp_path: Path) -> None:
    scripted.launcher.answers.append(Answer(when=("docker-registry",), hangs=True, stderr=b"listening\n"))
    log = tmp_path / "log"
    with scripted.runner.serving(Command(tool=Tool.DOCKER_REGISTRY, args=("serve",)), log) as server:
        assert server.is_alive()
        assert server.log.read_bytes() == b"listening\n"


def test_a_server_that_is_gone_is_seen(scripted: Scripted, tmp_path: Path) -> None:
    scripted.launcher.answers.append(Answer(when=("docker-registry",), exit_code=1))
    with scripted.runner.serving(Command(tool=Tool.DOCKER_REGISTRY, args=("serve",)), tmp_path / "log") as server:
        assert not server.is_alive()


def test_scratch_is_empty_afterwards(scripted: Scripted) -> None:
    scripted.launcher.answers.append(Answer(when=("tar",)))
    scripted.runner.run(Command(tool=Tool.TAR, args=()))
    assert list(scripted.runner.scratch.iterdir()) == []
