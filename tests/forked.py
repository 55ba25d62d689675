"""Starting regwrap without the time that imports take: a process that has its modules loaded is forked (zygote.py)."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HUNG: Final = 200.0  # seconds after which a run counts as hanging; on a quiet machine no case needs a tenth of it


@dataclass(frozen=True)
class Ended:
    """How a run of regwrap ended. `code` is None for one that hung and was killed. `other` is what the program at the
    other end of its pipe said."""

    code: int | None
    out: str
    err: str
    memory: int = 0
    other: str = ""

    @property
    def said(self) -> str:
        return f"{self.out}\n{self.err}"


@dataclass
class Zygote:
    """A process that forks regwraps; see zygote.py."""

    process: "subprocess.Popen[str]"
    files: Path
    _number: int = 0

    def start(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], traced: bool = False, umask: int = 0o022,
        uid: int = 0, stdin: Path | None = None, stdout: Path | None = None,
    ) -> "Run":  # fmt: skip
        """`stdin` and `stdout` are pipes that somebody holds open."""
        self._number += 1
        out, err = self.files / f"{self._number}.out", self.files / f"{self._number}.err"
        if uid:
            for path in (out, err):
                path.touch()
                os.chown(path, uid, uid)
        answer = self._ask(
            op="start", argv=list(argv), cwd=f"{cwd}", env=dict(env), stdin=f"{stdin or os.devnull}",
            out=f"{stdout or out}", err=f"{err}", traced=traced, umask=umask, uid=uid,
        )  # fmt: skip
        return Run(self, int(answer["pid"]), out, err)

    def wait(self, pid: int) -> tuple[int, int]:
        """The exit code, and the most memory that was used."""
        answer = self._ask(op="wait", pid=pid)
        return answer["code"], answer["memory"]

    def _ask(self, **request: object) -> dict[str, int]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, int] = json.loads(self.process.stdout.readline())
        return answer


@dataclass
class Run:
    """A regwrap that was started. `other` waits for the program at the other end of its pipe."""

    zygote: Zygote
    pid: int
    out: Path
    err: Path
    code: int | None = field(default=None)
    memory: int = 0
    other: Callable[[], str] = lambda: ""

    def ends_within(self, seconds: float) -> bool:
        if self.code is not None:
            return True
        descriptor = os.pidfd_open(self.pid)  # the zygote has not reaped it, so it is there
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(seconds * 1000):
                return False
        finally:
            os.close(descriptor)
        self.code, self.memory = self.zygote.wait(self.pid)
        return True

    def send(self, signum: int) -> None:
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def ended(self, seconds: float = HUNG) -> Ended:
        hung = not self.ends_within(seconds)
        if hung:
            self.send(signal.SIGUSR1)  # it says where it is
            self.ends_within(0.3)
            self.send(signal.SIGKILL)
            self.ends_within(10)
        texts = [path.read_text(errors="replace") if path.exists() else "" for path in (self.out, self.err)]
        for path in (self.out, self.err):
            path.unlink(missing_ok=True)
        return Ended(None if hung else self.code, texts[0], texts[1], self.memory, self.other())


@contextmanager
def started_zygote(files: Path) -> Iterator[Zygote]:
    files.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.zygote"],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Zygote(process, files)
        assert process.stdin
        process.stdin.close()
