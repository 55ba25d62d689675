"""One mutant: a process of its own in which the code is changed in memory, and the tests that run the changed line.

The package and all tests are imported once. For each mutant that process is forked, the function's code is replaced in
place, so that whoever has imported the function has the changed one, and the tests run until one fails. What counts at
import (defaults, constants) is changed on its way in, in a process that has not imported the package yet.
"""

import gc
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final, NoReturn

import pytest

from tests.mutants.changes import Mutant, changed_tree
from tests.mutants.suite import BrokenSuiteError, Ground, run_tests, silence


class Outcome(StrEnum):
    KILLED = "killed"
    SURVIVED = "survived"
    TIMEOUT = "timeout"
    NOT_RUN = "not run"  # no test runs the line


@dataclass(frozen=True)
class Trial:
    """A mutant and its tests, the likely ones first, with the CPU seconds that each takes."""

    mutant: Mutant
    tests: tuple[tuple[str, float], ...]


Told = Callable[[Trial, Outcome, float], None]

_KILLED, _SURVIVED, _NOT_IN_PLACE = 1, 0, 3  # exit codes of a mutant's process
_MEMORY: Final = 8 * 1024**3
# CPU seconds are a test's limit, since other work may be going on; who hangs uses none, and the clock ends it
_PATIENCE: Final = 5.0
_LEAST: Final = 2.0
_CLOCK: Final = 30.0


def try_all(ground: Ground, trials: Sequence[Trial], *, workers: int, deadline: float, told: Told) -> None:
    """Until `deadline`, by the monotonic clock. `told` hears each as it ends."""
    late: list[Trial] = []
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        silence()
        zygote = _Zygote(ground, [t for t in trials if t.mutant.outer is not None], writing, workers, deadline)
        run_tests(ground, [str(ground.root / ground.tests)], zygote)
        os._exit(0 if zygote.is_whole else 1)
    os.close(writing)
    by_name = {trial.mutant.name: trial for trial in trials}
    with os.fdopen(reading) as lines:
        for line in iter(lines.readline, ""):  # each as it comes
            name, code, seconds = json.loads(line)
            if code == _NOT_IN_PLACE:
                late.append(by_name[name])
            else:
                told(by_name[name], _outcome(code), seconds)
    if os.waitpid(pid, 0)[1]:
        raise BrokenSuiteError("the tests can't be collected together: pytest says which")
    late += [trial for trial in trials if trial.mutant.outer is None]
    _Pool(workers, deadline).run(late, lambda trial: _at_import(ground, trial), lambda t, c, s: told(t, _outcome(c), s))


def _outcome(code: int) -> Outcome:
    if code in {-signal.SIGPROF, -signal.SIGALRM}:
        return Outcome.TIMEOUT
    return Outcome.SURVIVED if code == _SURVIVED else Outcome.KILLED


@dataclass
class _Pool:
    """Forks for each trial, `workers` at a time. Each has a temporary directory, which is removed after it."""

    workers: int
    deadline: float
    running: dict[int, tuple[Trial, Path]] = field(default_factory=dict)

    def run(
        self, trials: Sequence[Trial], work: Callable[[Trial], int], ended: Callable[[Trial, int, float], None]
    ) -> None:
        for trial in trials:
            if time.monotonic() > self.deadline:
                break
            if len(self.running) == self.workers:
                ended(*self._wait())
            self._start(trial, work)
        while self.running:
            ended(*self._wait())

    def _start(self, trial: Trial, work: Callable[[Trial], int]) -> None:
        directory = Path(tempfile.mkdtemp(prefix="mutant-"))
        pid = os.fork()
        if pid == 0:
            _live(directory, lambda: work(trial))
        self.running[pid] = (trial, directory)

    def _wait(self) -> tuple[Trial, int, float]:
        pid, status, used = os.wait4(-1, 0)
        trial, directory = self.running.pop(pid)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)
        return trial, os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def _live(directory: Path, work: Callable[[], int]) -> NoReturn:
    """A mutant's life: it can't fill the memory, reaches no terminal, and its files are below `directory`."""
    code = _KILLED
    try:
        os.setsid()
        silence()
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        os.environ["TMPDIR"] = os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.tempdir = os.fspath(directory)
        code = work()
    finally:
        os._exit(code)


def _limit(seconds: float) -> None:
    """The kernel ends this process when a test takes much longer than it did."""
    limit = _LEAST + _PATIENCE * seconds
    signal.setitimer(signal.ITIMER_PROF, limit)
    signal.setitimer(signal.ITIMER_REAL, _CLOCK * limit)


@dataclass(eq=False)  # pytest keeps plugins in a set
class _Zygote:
    """A pytest session that has collected everything, and forks instead of running it."""

    ground: Ground
    trials: Sequence[Trial]
    answers: int
    workers: int
    deadline: float
    is_whole: bool = False

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.is_whole = not session.testsfailed
        if not self.is_whole:  # each mutant would count as killed
            return True
        items = {item.nodeid: item for item in session.items}
        functions = _functions(self.ground)
        gc.collect()
        gc.freeze()
        _Pool(self.workers, self.deadline).run(
            self.trials, lambda trial: _in_place(self.ground, trial, functions, items), self._tell
        )
        return True

    def _tell(self, trial: Trial, code: int, seconds: float) -> None:
        os.write(self.answers, f"{json.dumps([trial.mutant.name, code, seconds])}\n".encode())


_Functions = dict[tuple[str, str, int], list[FunctionType]]


def _functions(ground: Ground) -> _Functions:
    """The package's functions by module, name and first line: what a decorator has wrapped is found too."""
    found: _Functions = {}
    gc.unfreeze()  # what a conftest has frozen the collector does not tell of
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and (key := _key(ground, each.__code__)) is not None:
            found.setdefault(key, []).append(each)
    return found


def _key(ground: Ground, code: CodeType) -> tuple[str, str, int] | None:
    path = Path(code.co_filename)
    if not path.is_relative_to(ground.root / ground.package):
        return None
    return str(path.relative_to(ground.root)), code.co_qualname, code.co_firstlineno


def _in_place(ground: Ground, trial: Trial, functions: _Functions, items: dict[str, pytest.Item]) -> int:
    mutant = trial.mutant
    assert mutant.outer is not None
    path = ground.root / mutant.module
    changed = _codes(compile(changed_tree(path.read_bytes(), mutant.number), path, "exec", dont_inherit=True))
    found, code = functions.get((mutant.module, *mutant.outer), []), changed.get(mutant.outer, [])
    if len(found) == 0 or len(code) != 1 or len(found[0].__code__.co_freevars) != len(code[0].co_freevars):
        return _NOT_IN_PLACE
    for function in found:
        function.__code__ = code[0]
    return _first_failure([(items[test], seconds) for test, seconds in trial.tests])


def _codes(code: CodeType) -> dict[tuple[str, int], list[CodeType]]:
    found: dict[tuple[str, int], list[CodeType]] = {}
    for each in code.co_consts:
        if isinstance(each, CodeType):
            found.setdefault((each.co_qualname, each.co_firstlineno), []).append(each)
            for key, codes in _codes(each).items():
                found.setdefault(key, []).extend(codes)
    return found


def _first_failure(items: Sequence[tuple[pytest.Item, float]]) -> int:
    for at, (item, seconds) in enumerate(items):
        following = items[at + 1][0] if at + 1 < len(items) else None
        _limit(seconds)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if item.session.testsfailed:
            return _KILLED
    return _SURVIVED


def _at_import(ground: Ground, trial: Trial) -> int:
    sys.meta_path.insert(0, _Finder(ground, trial.mutant))
    files = sorted({test.partition("::")[0] for test, _seconds in trial.tests})
    chosen = _Chosen(dict(trial.tests))
    _limit(_IMPORT)
    run_tests(ground, [str(ground.root / file) for file in files], chosen)
    return chosen.code


_IMPORT: Final = 4.0  # seconds that importing everything may take


@dataclass(eq=False)  # pytest keeps plugins in a set
class _Chosen:
    """Runs the trial's tests in its order; where they can't be imported, that is noticed as well."""

    seconds: dict[str, float]
    code: int = _KILLED

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        order = {test: number for number, test in enumerate(self.seconds)}
        items[:] = sorted((i for i in items if i.nodeid in order), key=lambda i: order[i.nodeid])

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if not session.testsfailed and len(session.items) == len(self.seconds):
            self.code = _first_failure([(item, self.seconds[item.nodeid]) for item in session.items])
        return True


@dataclass
class _Finder:
    """Gives the changed module for the real one."""

    ground: Ground
    mutant: Mutant

    def find_spec(self, name: str, path: Sequence[str] | None, _target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.origin != os.fspath(self.ground.root / self.mutant.module):
            return None
        spec.loader = _ChangedLoader(name, spec.origin, self.mutant.number)
        return spec


class _ChangedLoader(SourceFileLoader):
    def __init__(self, name: str, path: str, number: int) -> None:
        super().__init__(name, path)
        self._number = number

    def get_code(self, _fullname: str) -> CodeType:
        return compile(changed_tree(Path(self.path).read_bytes(), self._number), self.path, "exec", dont_inherit=True)
