"""The unit tests in a process of their own: which of them run which line, and how long each takes.

The map is kept in `build/`: all of it until the code changes, each file's part until the file does.
"""

import gc
import hashlib
import json
import os
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, NoReturn

import coverage
import pytest

# lines of a module -> numbers of the tests that run them
Lines = Mapping[str, Mapping[int, frozenset[int]]]

_QUIET: Final = ("-q", "--tb=no", "-p", "no:xdist", "-p", "no:cacheprovider", "--capture=no")


class BrokenSuiteError(Exception):
    """The tests fail without any change, or can't be collected."""


@dataclass(frozen=True)
class Suite:
    """`tests` by number, the CPU seconds of each, and who runs which line of the package."""

    tests: tuple[str, ...]
    seconds: tuple[float, ...]
    lines: Lines

    def running(self, module: str, lines: Iterable[int]) -> frozenset[int]:
        known = self.lines.get(module, {})
        return frozenset().union(*(known.get(line, frozenset()) for line in lines))


@dataclass(frozen=True)
class Ground:
    """The package that is changed, and its tests; `root` is where both lie. `examples`: some tests use hypothesis."""

    root: Path
    package: str
    tests: str
    examples: bool = True

    def modules(self) -> list[str]:
        return sorted(str(p.relative_to(self.root)) for p in (self.root / self.package).rglob("*.py"))

    def test_files(self) -> list[str]:
        return sorted(str(p.relative_to(self.root)) for p in (self.root / self.tests).rglob("test_*.py"))

    def key(self) -> str:
        """Of all that every test may run."""
        return self.hash_of([*(self.root / self.package).rglob("*.py"), *(self.root / "tests").glob("*.py")])

    def hash_of(self, paths: Iterable[Path]) -> str:
        """Of files and their places below `root`: another checkout can take what is known of this one."""
        digest = hashlib.sha256()
        for path in sorted(paths):
            digest.update(f"{path.relative_to(self.root)}\0".encode() + path.read_bytes())
        return digest.hexdigest()


def run_tests(ground: Ground, tests: Iterable[str], plugin: object) -> int:
    """pytest in this process, with `plugin` to say what happens to the tests."""
    plugins = [plugin, _Examples()] if ground.examples else [plugin]
    return int(pytest.main([*_QUIET, f"--rootdir={ground.root}", *tests], plugins=plugins))


class _Examples:
    """An example of hypothesis that fails is enough: none is made smaller or remembered."""

    def pytest_configure(self) -> None:
        from hypothesis import Phase, settings  # pytest has to rewrite its asserts first

        settings.register_profile("mutants", phases=(Phase.explicit, Phase.generate), database=None, deadline=None)
        settings.load_profile("mutants")


def in_child(work: Callable[[], Any], output: Path) -> int:
    """Fork; `work` writes its result as JSON to `output`. What it says is thrown away, but for its end in pieces."""
    pid = os.fork()
    if pid == 0:
        _work(work, output)
    return pid


def _work(work: Callable[[], Any], output: Path) -> NoReturn:
    stderr = os.dup(2)
    silence()
    code = 1
    try:
        output.write_text(json.dumps(work()), encoding="utf-8")
        code = 0
    except BaseException:
        os.dup2(stderr, 2)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def silence() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)


def suite_of(ground: Ground, *, workers: int, say: Callable[[str], None]) -> Suite:
    """By running every test once, but those files of which `build/mutants.json` knows all already."""
    kept = ground.root / "build/mutants.json"
    known = _known(ground, kept)
    files = ground.test_files()
    if new := [file for file in files if file not in known]:
        say(f"running the tests of {len(new)} files once, to know which lines they run")
        known |= _observed_files(ground, new, workers, kept.parent)
        kept.write_text(json.dumps({"key": ground.key(), "files": known}), encoding="utf-8")
    suite = _suite([known[file] for file in files])
    say(f"{len(suite.tests)} tests, {sum(suite.seconds):.0f} s of CPU")
    return suite


def _known(ground: Ground, kept: Path) -> dict[str, Any]:
    if not kept.exists():
        return {}
    document = json.loads(kept.read_text(encoding="utf-8"))
    if document["key"] != ground.key():
        return {}
    return {
        file: seen
        for file, seen in document["files"].items()
        if (ground.root / file).exists() and seen["key"] == ground.hash_of([ground.root / file])
    }


def _observed_all(ground: Ground, mine: list[str]) -> list[dict[str, Any]]:
    return [_observed(ground, mine)] if mine else []


def _observed_files(ground: Ground, files: list[str], workers: int, directory: Path) -> dict[str, Any]:
    directory.mkdir(parents=True, exist_ok=True)
    outputs = [directory / f"mutants-part-{number}.json" for number in range(workers)]
    for number, output in enumerate(outputs):
        mine = files[number::workers]
        in_child(partial(_observed_all, ground, mine), output)
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in outputs]
    if any(codes):
        raise BrokenSuiteError("a run of the tests ended in pieces: see above")
    parts = [part for output in outputs for part in json.loads(output.read_text(encoding="utf-8"))]
    for output in outputs:
        output.unlink()
    failed = sorted({test for part in parts for test in part["failed"]})
    if failed and (failed := _failed_again(ground, failed, directory)):
        raise BrokenSuiteError("these tests fail without any change:\n  " + "\n  ".join(failed))
    found = {file: seen for part in parts for file, seen in part["files"].items()}
    nothing: dict[str, Any] = {"tests": [], "seconds": [], "lines": {}}
    return {file: {"key": ground.hash_of([ground.root / file]), **found.get(file, nothing)} for file in files}


def _failed_again(ground: Ground, tests: list[str], directory: Path) -> list[str]:
    """On a busy machine a test that waits for others may have waited in vain: those that fail a second time count."""
    output = directory / "mutants-again.json"
    pid = in_child(lambda: _observed(ground, tests)["failed"], output)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise BrokenSuiteError("a run of the tests ended in pieces: see above")
    failed: list[str] = json.loads(output.read_text(encoding="utf-8"))
    output.unlink()
    return failed


def _suite(files: list[Any]) -> Suite:
    tests, seconds = list[str](), list[float]()
    lines: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for seen in files:
        for module, runs in seen["lines"].items():
            for line, who in runs.items():
                lines[module][int(line)].update(len(tests) + number for number in who)
        tests += seen["tests"]
        seconds += seen["seconds"]
    frozen = {module: {line: frozenset(who) for line, who in runs.items()} for module, runs in lines.items()}
    return Suite(tuple(tests), tuple(seconds), frozen)


@dataclass(eq=False)  # pytest keeps plugins in a set
class _Observer:
    """Runs all tests and notes the lines that each of them runs."""

    package: str
    seen: coverage.Coverage
    tests: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    caches: list[Any] = field(default_factory=list)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        for cache in self._caches():
            cache.cache_clear()
        self.seen.switch_context(str(len(self.tests)))
        self.tests.append(item.nodeid)
        started = time.process_time()
        result = yield
        self.seconds.append(round(time.process_time() - started, 3))
        return result

    def _caches(self) -> list[Any]:
        """What a function remembers from one test, the next one would not run."""
        if not self.caches:
            gc.unfreeze()  # what a conftest has frozen the collector does not tell of
            kind = type(lru_cache(len))
            self.caches.extend(each for each in gc.get_objects() if isinstance(each, kind) and self._is_ours(each))
        return self.caches

    def _is_ours(self, cached: Any) -> bool:
        return str(cached.__module__).startswith(f"{self.package}.")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def _observed(ground: Ground, files: list[str]) -> dict[str, Any]:
    seen = coverage.Coverage(data_file=None, config_file=False, include=[f"{ground.root / ground.package}/*"])
    observer = _Observer(ground.package, seen)
    seen.start()
    code = run_tests(ground, [str(ground.root / file) for file in files], observer)
    seen.stop()
    if code not in {0, 1, 5}:
        raise BrokenSuiteError(f"pytest ended with {code}")
    return {"failed": observer.failed, "files": _by_file(ground, observer)}


def _by_file(ground: Ground, observer: _Observer) -> dict[str, Any]:
    """The numbers of the tests are those within their file."""
    files: dict[str, Any] = {}
    places: list[tuple[str, int]] = []
    for test, seconds in zip(observer.tests, observer.seconds, strict=True):
        file = test.partition("::")[0]
        seen = files.setdefault(file, {"tests": [], "seconds": [], "lines": {}})
        places.append((file, len(seen["tests"])))
        seen["tests"].append(test)
        seen["seconds"].append(seconds)
    data = observer.seen.get_data()
    for measured in data.measured_files():
        module = str(Path(measured).relative_to(ground.root))
        for line, tests in data.contexts_by_lineno(measured).items():
            for file, number in (places[int(test)] for test in tests if test):
                files[file]["lines"].setdefault(module, {}).setdefault(line, []).append(number)
    return files
