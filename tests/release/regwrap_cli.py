"""Running the command line as a user does, and what the tests need around it."""

import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from regwrap.core.model import Digest
from tests.forked import Zygote


@dataclass(frozen=True)
class Cli:
    """Starts `python -m regwrap` in `directory`, with a private home and data directory.

    A call without an environment or an input of its own is forked where there is a `zygote`: the same program, without
    the time that its imports take.
    """

    directory: Path
    zygote: Zygote | None = None
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def end(self) -> None:
        """End what a test that failed has left running."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.communicate()

    @property
    def environment(self) -> dict[str, str]:
        home = self.directory / "home"
        scratch = self.directory / "scratch"
        home.mkdir(exist_ok=True)
        scratch.mkdir(exist_ok=True)
        return {"PATH": os.environ["PATH"], "HOME": f"{home}", "TMPDIR": f"{scratch}", "LC_ALL": "C.UTF-8"}

    def command(self, *args: str | Path) -> list[str]:
        return [sys.executable, "-m", "regwrap", *(os.fspath(arg) for arg in args)]

    def __call__(
        self, *args: str | Path, stdin: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = self.command(*args)
        if self.zygote and not stdin and env is None:
            run = self.zygote.start(command[3:], cwd=self.directory, env=self.environment)
            ended = run.ended()
            assert ended.code is not None, f"regwrap {command[3:]} hangs: {ended.said}"
            return subprocess.CompletedProcess(command, ended.code, ended.out, ended.err)
        return subprocess.run(
            command,
            cwd=self.directory,
            env={**self.environment, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, *args: str | Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            self.command(*args),
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process


def shell(cli: Cli, line: str) -> "subprocess.CompletedProcess[str]":
    """A line of bash, in which REGWRAP is the program; its pipes fail as their first part does."""
    program = shlex.join(cli.command())
    return subprocess.run(
        [shutil.which("bash") or "bash", "-o", "pipefail", "-c", line.replace("REGWRAP", program)],
        cwd=cli.directory,
        env=cli.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def raw_digest(host: str, name: str) -> str:
    """The digest of what a registry gives for an image, by skopeo: an independent witness."""
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", "--no-creds", f"docker://{host}/{name}"],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    return str(Digest.of(raw))


def typed(command: list[str], keys: str, expected: str, *, cwd: Path, env: Mapping[str, str]) -> str:
    """What a terminal shows after `keys`, once `expected` is in it, or at the program's end. Ends the program."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execvpe(command[0], command, env)
    shown = b""
    try:
        os.write(terminal, keys.encode())
        deadline = time.monotonic() + 60
        while expected.encode() not in shown and time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 65536).replace(b"\r", b"")
    except OSError:  # the program has ended
        pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)
    return shown.decode(errors="replace")


def processes_with(text: str) -> list[str]:
    """Command lines of the live processes that mention `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found
