"""The Runner and `sh` with real programs: environment, limits, signals, and that no child is left behind."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from regwrap.core.errors import Interrupted, ToolError, UsageError
from regwrap.tools.launcher import ShLauncher
from regwrap.tools.runner import Command, Runner, Tool
from tests.conftest import StartRegistry

pytestmark = pytest.mark.tools("skopeo", "tar", "docker-registry")

DEADLINE = 10.0

# what a run of regwrap is for the kernel: a process with a Runner that waits for a program
RUN_SKOPEO = """
import sys
from pathlib import Path
from regwrap.tools.launcher import ShLauncher
from regwrap.tools.runner import Command, Runner, Tool
scratch, path, port = sys.argv[1:]
Runner(ShLauncher(), scratch=Path(scratch), search_path=path).run(
    Command(tool=Tool.SKOPEO, args=("inspect", "--tls-verify=false", f"docker://127.0.0.1:{port}/x:1"))
)
"""
# the same, killed at the moment of the start: the program has nobody yet who says that it dies too
START_AND_DIE = """
import os, signal, sys
from pathlib import Path
from regwrap.tools.launcher import ShLauncher
with Path(sys.argv[1]).open("w+b") as said:
    child = ShLauncher().start((sys.argv[2], "1000"), env={}, output=(said, said), inherit=())
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield server.getsockname()[1]


def silent_inspect(
    port: int,
    *,
    timeout: float | None = None,
    stall: float | None = None,
    inherit: tuple[int, ...] = (),
) -> Command:
    reference = f"docker://127.0.0.1:{port}/x:1"
    args = ("inspect", "--tls-verify=false", reference)
    return Command(tool=Tool.SKOPEO, args=args, timeout=timeout, stall=stall, inherit=inherit)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def stat_fields(pid: int) -> tuple[str, list[str]] | None:
    """The program's name and the fields after it of /proc/PID/stat; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    return name, rest.split()


def children(parent: int, name: str) -> list[int]:
    """The live children of `parent` that run the program `name`."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    fields = {pid: found for pid in pids if (found := stat_fields(pid)) is not None}
    return [
        pid for pid, (comm, rest) in fields.items() if comm == name and int(rest[1]) == parent and rest[0] != "Z"
    ]  # fmt: skip


def is_gone(pid: int) -> bool:
    found = stat_fields(pid)
    return found is None or found[1][0] == "Z"


def open_file(pid: int, descriptor: int) -> str:
    return os.fspath(Path(f"/proc/{pid}/fd/{descriptor}").readlink())


def open_files(pid: int) -> Iterator[str]:
    """Of a process that goes on, and may close what was just listed."""
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            yield open_file(pid, int(number))


def own_child(name: str = "skopeo") -> int:
    """The pid of this process's child, as soon as it is there."""
    until(lambda: bool(children(os.getpid(), name)))
    return children(os.getpid(), name)[0]


@contextmanager
def running(runner: Runner, command: Command) -> Iterator[Callable[[], BaseException | None]]:
    """Run `command` in a thread for the block; yields a function that waits for its end and returns the error."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(runner.run, command)
        try:
            yield lambda: future.exception(DEADLINE)
        finally:
            runner.stopping.set()


def test_a_missing_program_is_the_users_to_install(tmp_path: Path) -> None:
    runner = Runner(ShLauncher(), scratch=tmp_path, search_path=os.fspath(tmp_path))
    with pytest.raises(UsageError, match="is not installed") as raised:
        runner.run(Command(tool=Tool.SKOPEO, args=("--version",)))
    assert "regwrap doctor" in raised.value.hint


def test_the_environment_is_built_from_nothing(real_runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAR_OPTIONS", "--bogus")
    assert b"GNU tar" in real_runner.run(Command(tool=Tool.TAR, args=("--version",))).stdout
    with pytest.raises(ToolError, match="--bogus"):
        real_runner.run(Command(tool=Tool.TAR, args=("--version",), env=(("TAR_OPTIONS", "--bogus"),)))


def test_stdout_is_kept_byte_for_byte(real_runner: Runner, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000 + b"\r\n\x00no newline at the end"
    (tmp_path / "file").write_bytes(data)
    archive = tmp_path / "file.tar"
    flags = ("--create", "-C", f"{tmp_path}", "file")
    real_runner.run(Command(tool=Tool.TAR, args=("--file", f"{archive}", *flags)))
    assert real_runner.run(Command(tool=Tool.TAR, args=("--file=-", *flags))).stdout == archive.read_bytes()
    extracted = real_runner.run(Command(tool=Tool.TAR, args=("--extract", "--to-stdout", "--file", f"{archive}")))
    assert extracted.stdout == data


def test_an_exit_code_is_an_error_with_what_the_program_said(real_runner: Runner, tmp_path: Path) -> None:
    command = Command(tool=Tool.TAR, args=("--list", "--file", f"{tmp_path}/absent"))
    with pytest.raises(ToolError, match=r"tar failed with exit code 2: .*absent: Cannot open") as raised:
        real_runner.run(command)
    assert not raised.value.transient
    result = real_runner.run(Command(tool=Tool.TAR, args=command.args, ok_codes=(2,)))
    assert (result.exit_code, result.stdout) == (2, b"")
    assert "Cannot open" in result.stderr


def test_secrets_reach_neither_errors_nor_the_log(real_runner: Runner, tmp_path: Path) -> None:
    log: list[str] = []
    real_runner.log = log.append
    path = f"{tmp_path}/hush-hush"
    with pytest.raises(ToolError) as raised:
        real_runner.run(Command(tool=Tool.TAR, args=("--list", "--file", path), secrets=("hush-hush",)))
    assert "***: Cannot open" in str(raised.value)
    assert "hush-hush" not in f"{raised.value!r}{raised.value}{raised.value.detail}{log}"
    assert log == [f"tar --list --file '{tmp_path}/***'"]


def test_a_silent_server_ends_by_the_stall_limit(real_runner: Runner, silent_port: int) -> None:
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"skopeo made no progress for 1 s and was stopped") as raised:
        real_runner.run(silent_inspect(silent_port, stall=1))
    assert raised.value.transient
    assert time.monotonic() - started < 30
    assert children(os.getpid(), "skopeo") == []


def test_a_hanging_program_ends_by_the_timeout(real_runner: Runner, silent_port: int) -> None:
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"skopeo was not done after 0.5 s and was stopped") as raised:
        real_runner.run(silent_inspect(silent_port, timeout=0.5))
    assert raised.value.transient
    assert time.monotonic() - started < 30
    assert children(os.getpid(), "skopeo") == []


def test_a_program_that_works_does_not_stall(real_runner: Runner, tmp_path: Path) -> None:
    big, unread = tmp_path / "big", tmp_path / "pipe"
    big.write_bytes(b"x" * 300_000)
    os.mkfifo(unread)
    received = 0

    def read_slowly() -> None:
        # a reader that takes as long as three stall limits, a piece at a time
        nonlocal received
        with unread.open("rb", buffering=0) as pipe:
            while piece := pipe.read(16 * 1024):
                received += len(piece)
                time.sleep(0.06)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    command = Command(tool=Tool.TAR, args=("--create", "--file", f"{unread}", "-C", f"{tmp_path}", "big"), stall=0.4)
    result = real_runner.run(command)
    reader.join(DEADLINE)
    assert result.seconds > 0.4
    assert received > 300_000


def test_death_by_signal_is_transient(real_runner: Runner, silent_port: int) -> None:
    with running(real_runner, silent_inspect(silent_port)) as outcome:
        os.kill(own_child(), signal.SIGKILL)
        error = outcome()
    assert isinstance(error, ToolError)
    assert error.message == "skopeo was terminated by signal 9"
    assert error.transient


def test_a_child_has_its_own_group_and_no_terminal(real_runner: Runner, silent_port: int) -> None:
    with running(real_runner, silent_inspect(silent_port)):
        child = own_child()
        found = stat_fields(child)
        assert found is not None
        assert int(found[1][2]) == child
        assert open_file(child, 0) == os.devnull
        assert all("/dev/" not in open_file(child, number) for number in (1, 2))


def test_stopping_ends_what_runs_and_starts_no_more(real_runner: Runner, silent_port: int) -> None:
    with running(real_runner, silent_inspect(silent_port)) as outcome:
        child = own_child()
        real_runner.stopping.set()
        error = outcome()
        assert is_gone(child)
    assert isinstance(error, ToolError)
    assert error.message == "skopeo was stopped: regwrap is stopping"
    assert not error.transient
    with pytest.raises(ToolError, match="was not started"):
        real_runner.run(Command(tool=Tool.TAR, args=("--version",)))


@pytest.mark.usefixtures("handled_signals")
def test_an_interrupted_run_leaves_no_child(real_runner: Runner, silent_port: int) -> None:
    seen: list[int] = []

    def send_when_it_runs() -> None:
        seen.append(own_child())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    sender = threading.Thread(target=send_when_it_runs)
    sender.start()
    with pytest.raises(Interrupted):
        real_runner.run(silent_inspect(silent_port, timeout=DEADLINE))
    sender.join(DEADLINE)
    assert is_gone(seen[0])


def test_kill_9_of_regwrap_leaves_no_child(tmp_path: Path, silent_port: int) -> None:
    path = os.environ.get("PATH", os.defpath)
    command = [sys.executable, "-c", RUN_SKOPEO, f"{tmp_path}", path, f"{silent_port}"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as regwrap:
        try:
            until(lambda: bool(children(regwrap.pid, "skopeo")))
            (child,) = children(regwrap.pid, "skopeo")
        finally:
            regwrap.kill()
        until(lambda: is_gone(child))


def test_kill_9_at_the_moment_of_a_start_leaves_no_child(tmp_path: Path) -> None:
    sleep = shutil.which("sleep")
    assert sleep
    command = [sys.executable, "-c", START_AND_DIE, f"{tmp_path}/said", sleep]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    until(lambda: is_gone(int(done.stdout)))


def test_a_lock_is_held_as_long_as_the_child_that_inherited_it(
    real_runner: Runner, silent_port: int, tmp_path: Path
) -> None:
    path = tmp_path / "lock"
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    with path.open("rb") as other:
        with running(real_runner, silent_inspect(silent_port, inherit=(held,))) as outcome:
            own_child()
            os.close(held)
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            real_runner.stopping.set()
            outcome()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_that_is_not_handed_on_is_not_inherited(real_runner: Runner, silent_port: int, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("wb") as held, running(real_runner, silent_inspect(silent_port)):
        child = own_child()
        names = set(open_files(child))
    assert names
    assert held.name not in names


def test_a_server_runs_for_its_block(real_runner: Runner, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text(
        f'{{"version": "0.1", "http": {{"addr": "127.0.0.1:0"}}, "log": {{"level": "info"}},'
        f'"storage": {{"filesystem": {{"rootdirectory": "{tmp_path}/root"}}}}}}'
    )
    command = Command(tool=Tool.DOCKER_REGISTRY, args=("serve", f"{config}"))
    with real_runner.serving(command, tmp_path / "log") as server:
        pid = server.process.pid
        until(lambda: b"listening on 127.0.0.1" in server.log.read_bytes())
        assert server.is_alive()
    assert is_gone(pid)


def test_a_server_that_dies_is_seen(real_runner: Runner, tmp_path: Path) -> None:
    command = Command(tool=Tool.DOCKER_REGISTRY, args=("serve", f"{tmp_path}/absent.yml"))
    with real_runner.serving(command, tmp_path / "log") as server:
        until(lambda: not server.is_alive())
        assert b"absent.yml" in server.log.read_bytes()


def test_many_threads_run_programs_at_once(real_runner: Runner, tmp_path: Path) -> None:
    def echo(number: int) -> bytes:
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
        archive, place = f"{tmp_path}/{number}.tar", ("-C", f"{tmp_path}", f"{number}")
        real_runner.run(Command(tool=Tool.TAR, args=("-cf", archive, *place)))
        return real_runner.run(Command(tool=Tool.TAR, args=("-xOf", archive, *place))).stdout

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(echo, range(20))) == [b"%d" % number for number in range(20)]
    assert list(real_runner.scratch.iterdir()) == []


def test_the_loopback_registry_of_the_tests_answers(
    loopback_registry: StartRegistry, real_runner: Runner, tmp_path: Path
) -> None:
    served = loopback_registry(tmp_path / "storage", {"storage": {"maintenance": {"readonly": {"enabled": True}}}})
    args = ("list-tags", "--tls-verify=false", f"docker://{served.host}/absent")
    with pytest.raises(ToolError, match="skopeo failed with exit code 1"):
        real_runner.run(Command(tool=Tool.SKOPEO, args=args, timeout=DEADLINE, env=(("HOME", f"{tmp_path}"),)))
    assert b"absent" in served.log.read_bytes()


def test_a_program_that_can_t_be_executed_is_named_and_no_bug(tmp_path: Path) -> None:
    broken = tmp_path / "setpriv"
    broken.write_bytes(b"\x7fELF and no more")
    broken.chmod(0o755)
    runner = Runner(ShLauncher(), scratch=tmp_path, search_path=f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ToolError, match=r"tar could not be started: OSError: .*Exec format error"):
        runner.run(Command(tool=Tool.TAR, args=("--version",)))


def test_signals_at_the_moment_of_a_start_are_neither_lost_nor_leave_a_child(tmp_path: Path) -> None:
    """A fork takes long enough that many of the signals come while one is under way."""
    script = """
import random, signal, sys, time
from pathlib import Path
from regwrap.core.errors import Interrupted
from regwrap.core.interruption import handle_signals, raise_again
from regwrap.tools.launcher import ShLauncher
from regwrap.tools.runner import Command, Runner, Tool
sys.unraisablehook = raise_again
ballast = [bytearray(4096) for _ in range(40_000)]
runner = Runner(ShLauncher(), scratch=Path(sys.argv[1]), search_path=sys.argv[2])
dice, lost = random.Random(3), 0
for _ in range(60):
    handle_signals()
    signal.signal(signal.SIGALRM, lambda number, frame: signal.getsignal(signal.SIGTERM)(15, frame))
    signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0005, 0.02))
    try:
        runner.run(Command(tool=Tool.TAR, args=("--version",)))
        time.sleep(0.05)
        lost += 1
    except Interrupted:
        pass
assert not lost, lost
assert not Path(f"/proc/self/task/{__import__('os').getpid()}/children").read_text()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path, os.environ["PATH"]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_signal_at_the_moment_of_an_end_is_an_interruption(tmp_path: Path) -> None:
    """The kernel tells an exit code once. Here the signal comes when it has told it, and before Python has noted it."""
    script = """
import os, signal, sys, threading, time
from pathlib import Path
from regwrap.core.errors import Interrupted
from regwrap.core.interruption import handle_signals
from regwrap.tools.launcher import ShLauncher
from regwrap.tools.runner import Command, Runner, Tool
sys.setswitchinterval(0.00001)
runner = Runner(ShLauncher(), scratch=Path(sys.argv[1]), search_path=sys.argv[2])
children, gate = Path(f"/proc/self/task/{os.getpid()}/children"), Path(sys.argv[1], "gate")
os.mkfifo(gate)

def interrupt_when_it_is_reaped():
    while not (pids := children.read_text().split()):
        pass
    pid, main = int(pids[0]), threading.main_thread().ident
    gate.write_text("end now\\n")
    try:  # without a call in between, at which Python would let the other thread go on
        while True:
            os.kill(pid, 0)
    except ProcessLookupError:
        signal.pthread_kill(main, signal.SIGTERM)

for _ in range(20):
    handle_signals()
    watcher = threading.Thread(target=interrupt_when_it_is_reaped, daemon=True)
    watcher.start()
    try:
        runner.run(Command(tool=Tool.SH, args=("-c", f"read line <{gate}")))
        time.sleep(5)
    except Interrupted:
        print("interrupted", end=" ")
    watcher.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path, os.environ["PATH"]], capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["interrupted"] * 20


def test_what_a_program_says_of_a_full_disk_needs_no_disk(tmp_path: Path) -> None:
    """stderr into a file on the disk that is full would be empty."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], check=True)
    try:
        (small / "filler").write_bytes(bytes(8192))
        runner = Runner(ShLauncher(), scratch=small, search_path=os.environ["PATH"])
        with pytest.raises(ToolError, match="Wrote only"):
            runner.run(Command(tool=Tool.TAR, args=("--create", "--file", f"{small}/x.tar", "-C", "/usr/bin", "tar")))
    finally:
        subprocess.run(["umount", small], check=True)
