"""Guards and fixtures. Without the `tools` marker no test can start a program, not even by mistake."""

import gc
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NoReturn

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling, Scheduling

from regwrap.core.interruption import handle_signals, let_signals_be
from regwrap.tools.launcher import ShLauncher
from regwrap.tools.runner import Runner, Tool
from tests.fakes import Scripted, make_scripted
from tests.inherited import hear_signals
from tests.registry import LoopbackRegistry, served_loopback

StartRegistry = Callable[..., LoopbackRegistry]
_OPTION = "--share"
_DEAR: Final = ("tests/release/test_site.py",)  # the site is built
_OTHERS = pytest.StashKey[frozenset[Path]]()

# a machine that does something else at the same time is slow, and nothing is wrong with the test
settings.register_profile("patient", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(_OPTION, default="1/1", metavar="K/N", help="only the K-th of N shares of the files")


def pytest_configure(config: pytest.Config) -> None:
    share, shares = map(int, config.getoption(_OPTION).split("/"))
    config.stash[_OTHERS] = _others(share, shares)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path in config.stash[_OTHERS] else None


def pytest_collection_finish() -> None:
    """The collector need not look at thousands of collected tests again and again: a sixth of the time of all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


class _OneWorker(LoadScopeScheduling):
    """Any test to any worker, but for those of a file whose preparation is dear: one worker has them all."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file.endswith(_DEAR) else nodeid


@pytest.hookimpl(optionalhook=True)  # make mutants runs the tests without it
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    return _OneWorker(config, log) if config.getvalue("dist") == "load" else None


def _others(share: int, shares: int) -> frozenset[Path]:
    """The files of unit tests that other shares have: most tests first, each into the share that has fewest."""
    held: list[list[Path]] = [[] for _ in range(shares)]
    tests = [0] * shares
    files = {path: path.read_bytes().count(b"\ndef test_") for path in Path(__file__).parent.rglob("unit/**/test_*.py")}
    for path, number in sorted(files.items(), key=lambda item: (-item[1], item[0])):
        fewest = tests.index(min(tests))
        held[fewest].append(path)
        tests[fewest] += number
    return frozenset(path for number, paths in enumerate(held, 1) for path in paths if number != share)


@pytest.fixture(scope="session", autouse=True)
def _heard_signals() -> None:
    hear_signals()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is not marked `tools` can start no program. No fixture, which would take a tenth of the time."""
    if item.get_closest_marker("tools") is not None:
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShLauncher, "start", _refuse)
        patch.setattr(ShLauncher, "start_in_front", _refuse)
        patch.setattr(subprocess.Popen, "__init__", _refuse)
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A marked test needs its programs (`tools("tar")` only tar), and fails where one is missing; `make test` installs
    them."""
    marker = item.get_closest_marker("tools")
    if marker is None:
        return
    needed = {Tool.SETPRIV, *marker.args} if marker.args else set(Tool) - _ASKED_FOR
    missing = sorted(tool for tool in needed if shutil.which(tool, path=_search_path()) is None)
    if missing:
        pytest.fail(f"not installed: {', '.join(missing)}; make test installs what tests need")


_ASKED_FOR: Final = {Tool.SSH_KEYGEN, Tool.PAR2, Tool.OPENSSL}  # what has tests of its own


def _refuse(*args: object, **_kwargs: object) -> NoReturn:
    raise AssertionError(f"a program is started in a test without the marker `tools`: {args[1:]}")


def _search_path() -> str:
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))


@pytest.fixture
def handled_signals() -> Iterator[None]:
    """Signals raise Interrupted in the test, as they do in a run of regwrap."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    handle_signals()
    yield
    let_signals_be()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def scripted(tmp_path: Path) -> Scripted:
    """A Runner whose programs only answer from a script; nothing real is started."""
    return make_scripted(tmp_path / "scripted")


@pytest.fixture
def real_runner(tmp_path: Path) -> Runner:
    """A Runner that starts the real programs; only for tests marked `tools`."""
    scratch = tmp_path / "runner-scratch"
    scratch.mkdir()
    return Runner(ShLauncher(), scratch=scratch, search_path=os.environ.get("PATH", os.defpath))


@pytest.fixture
def loopback_registry(tmp_path: Path) -> Iterator[StartRegistry]:
    """`loopback_registry(root, extra={...})` serves a storage until the test ends; only for tests marked `tools`."""
    with ExitStack() as stack:
        numbers = iter(range(1000))

        def start(root: Path, extra: Mapping[str, object] | None = None) -> LoopbackRegistry:
            scratch = tmp_path / f"registry-{next(numbers)}"
            return stack.enter_context(served_loopback(root, scratch=scratch, extra=extra))

        yield start
