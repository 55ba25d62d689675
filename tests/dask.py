"""A cluster of Dask on loopback: a scheduler and workers, each a process of its own, that a test starts and ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock


@dataclass
class DaskHost:
    """Forks them."""

    process: "subprocess.Popen[str]"
    lock: Lock = field(default_factory=Lock)

    def start(self, **request: object) -> tuple[int, str]:
        """The process, and its address."""
        assert self.process.stdin
        assert self.process.stdout
        with self.lock:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        assert answer["address"], f"it did not start: {Path(str(request['log'])).read_text()}"
        return answer["pid"], answer["address"]


@contextmanager
def started_dask_host(directory: Path) -> Iterator[DaskHost]:
    with (directory / "daskhost.log").open("w") as log:
        command = [sys.executable, "-m", "tests.daskhost"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True) as process:
            yield DaskHost(process)
            process.communicate(timeout=60)  # the end of its input ends it


@dataclass
class DaskCluster:
    """`address` is the scheduler's. `workers` are processes by their names; one that is not heard of for `ttl` is lost.
    `env` is that of all of them: with certificates they use TLS."""

    host: DaskHost
    directory: Path
    address: str = ""
    scheduler: int = 0
    workers: dict[str, int] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    ttl: str = "60s"

    def start_scheduler(self) -> None:
        self.scheduler, self.address = self._start("scheduler", "", {})

    def start_worker(self, name: str, env: Mapping[str, str] | None = None) -> None:
        self.workers[name], _address = self._start(name, self.address, env or {})

    def kill(self, name: str) -> None:
        os.kill(self.workers.pop(name), signal.SIGKILL)

    def kill_scheduler(self) -> None:
        os.kill(self.scheduler, signal.SIGKILL)
        self.scheduler = 0

    def end(self) -> None:
        for pid in (*self.workers.values(), self.scheduler):
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def _start(self, name: str, scheduler: str, env: Mapping[str, str]) -> tuple[int, str]:
        """In a directory and a home of its own, as on another machine."""
        place = self.directory / name
        (place / "home").mkdir(parents=True, exist_ok=True)
        surroundings = {
            "PATH": os.environ["PATH"],
            "HOME": f"{place / 'home'}",
            "TMPDIR": f"{place}",
            "LC_ALL": "C.UTF-8",
            **self.env,
            **env,
        }
        log = self.directory / f"{name}.log"
        return self.host.start(
            name=name,
            scheduler=scheduler,
            cwd=f"{place}",
            env=surroundings,
            log=f"{log}",
            port=0,
            protocol="tls" if self.env else "tcp",
            ttl=self.ttl,
        )


@contextmanager
def dask_cluster(
    host: DaskHost, directory: Path, workers: int = 3, *, env: Mapping[str, str] | None = None, ttl: str = "60s"
) -> Iterator[DaskCluster]:
    directory.mkdir()
    cluster = DaskCluster(host, directory, env=env or {}, ttl=ttl)
    try:
        cluster.start_scheduler()
        for number in range(workers):
            cluster.start_worker(f"w{number}")
        yield cluster
    finally:
        cluster.end()
