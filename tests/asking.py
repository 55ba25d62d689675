"""A real skopeo that is listened to, between two registries on loopback."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from regwrap.core.location import Registry, Timeouts
from regwrap.core.model import Digest
from regwrap.tools.launcher import Process, ShLauncher
from regwrap.tools.runner import Runner
from regwrap.tools.skopeo import Remote, Skopeo
from tests.builders import make_image, make_multi_image, make_storage
from tests.registry import served_loopback

ONE, LIST = make_image("one"), make_multi_image("list", kind="docker")


@dataclass(frozen=True)
class Answer:
    """How a skopeo ended: its exit code and stderr."""

    exit_code: int
    stderr: str


@dataclass(slots=True)
class ListeningLauncher:
    """The real launcher, of which the last answer is kept. `limit` stands for the one that skopeo is given, `front` is
    what becomes skopeo."""

    limit: str = ""
    front: tuple[str, ...] = ()
    real: ShLauncher = field(default_factory=ShLauncher)
    last: tuple[Process, int] | None = None

    def start(
        self,
        argv: tuple[str, ...],
        *,
        env: Mapping[str, str],
        output: tuple[IO[bytes], IO[bytes]],
        inherit: tuple[int, ...],
        stdin: Path | bytes | None = None,
    ) -> Process:
        if self.limit:
            given = argv.index("--command-timeout") + 1
            argv = (*argv[:given], self.limit, *argv[given + 1 :])
        process = self.real.start((*self.front, *argv), env=env, output=output, inherit=inherit, stdin=stdin)
        self.last = (process, os.dup(output[1].fileno()))
        return process

    def start_in_front(self, argv: tuple[str, ...], *, env: Mapping[str, str]) -> Process:
        return self.real.start_in_front(argv, env=env)

    def answer(self) -> Answer:
        assert self.last is not None
        process, descriptor = self.last
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0)
            said = file.read().decode(errors="replace")
        return Answer(process.wait(30) or 0, said)


@dataclass(frozen=True)
class Location:
    """`host` serves ONE as a/one:1 and LIST as a/list:1; `dest` takes everything. `skopeo` is asked."""

    skopeo: Skopeo
    host: str
    dest: str
    directory: Path
    launcher: ListeningLauncher

    def remote(
        self,
        host: str,
        repository: str = "a/one",
        reference: str | Digest = "1",
        *,
        tls_verify: bool = False,
        plain_http: bool = True,
        authfile: Path | None = None,
    ) -> Remote:
        registry = Registry(host=host, tls_verify=tls_verify, plain_http=plain_http, authfile=authfile)
        return Remote(registry=registry, repository=repository, reference=reference)

    def to_layout(self, source: Remote, layout: str = "layout") -> None:
        shared = self.directory / layout / "shared"
        (shared / "sha256").mkdir(parents=True)
        self.skopeo.copy_to_layout(source, self.directory / layout / "layout", shared, inherit=())


@contextmanager
def made_place(directory: Path) -> Iterator[Location]:
    for name in ("scratch", "home"):
        (directory / name).mkdir(parents=True)
    launcher = ListeningLauncher()
    search_path = os.environ["PATH"]
    runner = Runner(launcher, scratch=directory / "scratch", search_path=search_path, stopping=threading.Event())
    skopeo = Skopeo(runner=runner, home=directory / "home", timeouts=Timeouts(stall=30, copy=60))
    root = make_storage(directory / "source", {"a/one:1": ONE, "a/list:1": LIST})
    with (
        served_loopback(root, scratch=directory / "registry") as source,
        served_loopback(directory / "dest", scratch=directory / "other") as dest,
    ):
        yield Location(skopeo, source.host, dest.host, directory, launcher)
