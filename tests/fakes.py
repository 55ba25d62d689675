"""Stands in for programs, below the Runner's seam: everything above it is the real code.

`ScriptedLauncher` answers from a script, records what was started, and refuses what the script does not have.
"""

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from regwrap.core.listener import Silent
from regwrap.tools.launcher import Process
from regwrap.tools.runner import Runner, Tool

Argv = tuple[str, ...]

NOT_ASKED: Any = None
"""In the place of what a test has no use for."""

_DEATH_SIGNAL: Final = ("--pdeathsig", "KILL")
_FIRST_PID: Final = 2**30  # no kernel gives such a pid: a signal to it reaches nobody


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a program does when its argv begins with `when`, or when `when` says so. `argv[0]` is the bare name.

    `effect` runs at the start and may write files; `reads` gets what the program reads, and says what it prints.
    `repeats`: answers as often as asked, else once. `hangs`: the program runs until it is ended by a signal, and
    reports `exit_code` then.
    """

    when: Argv | Callable[[Argv], bool]
    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    effect: Callable[[Argv], None] | None = None
    reads: Callable[[bytes], bytes] | None = None
    repeats: bool = False
    hangs: bool = False

    def fits(self, argv: Argv) -> bool:
        return argv[: len(self.when)] == self.when if isinstance(self.when, tuple) else self.when(argv)


@dataclass(frozen=True)
class Started:
    """One recorded start. `argv[0]` is the bare name, and setpriv in front of it is left out."""

    argv: Argv
    env: Mapping[str, str]
    inherit: tuple[int, ...]
    stdin: bytes = b""


@dataclass(frozen=True)
class FinishedProcess:
    """Ended before anybody looked; with `hangs` it ends only for one who waits without a limit."""

    pid: int
    exit_code: int
    hangs: bool = False

    def wait(self, timeout: float | None) -> int | None:
        return None if self.hangs and timeout is not None else self.exit_code


@dataclass
class ScriptedLauncher:
    """The first answer that fits and is not used up is given."""

    answers: list[Answer] = field(default_factory=list)
    started: list[Started] = field(default_factory=list)
    _used: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(
        self,
        argv: Argv,
        *,
        env: Mapping[str, str],
        output: tuple[IO[bytes], IO[bytes]],
        inherit: tuple[int, ...],
        stdin: Path | bytes | None = None,
    ) -> Process:
        bare, given = _bare(argv), stdin if isinstance(stdin, bytes) else b""
        with self._lock:
            self.started.append(Started(bare, dict(env), inherit, given))
            answer, pid = self._take(bare), _FIRST_PID + len(self.started)
        if answer.effect is not None:
            answer.effect(bare)
        said = answer.stdout if answer.reads is None else answer.reads(given)
        for file, data in zip(output, (said, answer.stderr), strict=True):
            file.write(data)
            file.flush()
        return FinishedProcess(pid, answer.exit_code, answer.hangs)

    def start_in_front(self, argv: Argv, *, env: Mapping[str, str]) -> Process:
        bare = _bare(argv)
        self.started.append(Started(bare, dict(env), ()))
        return FinishedProcess(_FIRST_PID + len(self.started), self._take(bare).exit_code)

    @property
    def argvs(self) -> list[Argv]:
        return [start.argv for start in self.started]

    def assert_all_used(self) -> None:
        unused = [a.when for n, a in enumerate(self.answers) if n not in self._used and not a.repeats]
        assert not unused, f"never asked for: {unused}"

    def _take(self, argv: Argv) -> Answer:
        for number, answer in enumerate(self.answers):
            if (answer.repeats or number not in self._used) and answer.fits(argv):
                self._used.add(number)
                return answer
        raise AssertionError(f"the script has no answer for {argv}")


@dataclass(frozen=True)
class Scripted:
    """A Runner whose programs are all scripted: `scripted.launcher.answers.append(Answer(...))`."""

    launcher: ScriptedLauncher
    runner: Runner
    log: list[str]


def make_scripted(directory: Path, *answers: Answer) -> Scripted:
    """`directory` receives an empty executable file for every Tool, so that the Runner finds them."""
    programs, scratch = directory / "programs", directory / "scratch"
    programs.mkdir(parents=True)
    scratch.mkdir()
    for tool in Tool:
        (programs / tool).touch(mode=0o755)
    launcher, log = ScriptedLauncher(list(answers)), list[str]()
    runner = Runner(launcher, scratch=scratch, search_path=os.fspath(programs), log=log.append)
    return Scripted(launcher, runner, log)


def _bare(argv: Argv) -> Argv:
    assert Path(argv[0]).name == Tool.SETPRIV, f"started without setpriv: {argv}"
    assert argv[1:3] == _DEATH_SIGNAL, f"started without a parent-death signal: {argv}"
    return (Path(argv[3]).name, *argv[4:])


class Listening(Silent):
    """Keeps what is logged, what is expected of each step, and what came."""

    def __init__(self) -> None:
        self.steps, self.told, self.lines = list[tuple[str, int]](), list[int](), list[str]()

    def log(self, text: str, /) -> None:
        self.lines.append(text)

    def expect(self, step: str, expected: int, /) -> None:
        self.steps.append((step, expected))

    def on_bytes(self, count: int, /) -> None:
        self.told.append(count)
