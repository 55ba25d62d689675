"""The ground of a worker: templates of all that a case needs, a registry with the source's images, and a fresh copy for
each case. Everything is made from nothing with the same bytes each time, so a case's name says all of it."""

import base64
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

from tests.builders import Image, make_image, make_layer, make_multi_image, make_storage
from tests.forked import Ended, Run, Zygote
from tests.registry import LoopbackRegistry, served_loopback
from tests.torture.pipes import cat, fifo, said_by
from tests.torture.scenarios import BUNDLE, LISTED, Scenario

_HUGE: Final = 1 << 30
SECRET: Final = "s3cr3t-of-the-robot"
_BASE: Final = make_layer("base", Random(1).randbytes(60_000))
OLD: Final[dict[str, Image]] = {
    "app:v1": make_image("app old", layers=[_BASE, make_layer("app-old")]),
    "keep/multi:1": make_multi_image("kept"),
    "keep/one:1": make_image("kept one", kind="docker"),
}
NEW: Final[dict[str, Image]] = {
    "app:v1": make_image("app new", layers=[_BASE, make_layer("app-new", Random(2).randbytes(9_000))]),
    "app:v2": make_image("app two", layers=[_BASE, make_layer("app-two", Random(3).randbytes(150_000))]),
    "lib/tool:1": make_image("tool", kind="docker"),
    "multi/web:1": make_multi_image("web"),
}
_CONFIG: Final = {"retry": {"attempts": 2, "wait": 0.02, "max_wait": 0.1, "outage": 0}, "jobs": 4}
_HASTY: Final = {"timeouts": {"stall": 3, "copy": 30, "request": 2, "lock": 60}}


@dataclass
class Place:
    """One case's own directory, and what it talks to. `hasty`: with short time limits, where the fault is a wait
    without an end. All others have the default ones: a busy machine is no fault."""

    root: Path
    source: str
    dest: str
    zygote: Zygote
    spared: frozenset[int]
    environment: dict[str, str]
    private_memory: bool
    uid: int = 0
    umask: int = 0o022
    hasty: bool = False
    pipe: tuple[str, ...] = ()

    def start(self, *argv: str, traced: bool = False) -> Run:
        if self.pipe and "-" in argv:
            return self._piped(argv, traced=traced)
        return self._started(argv, traced=traced)

    def _piped(self, argv: tuple[str, ...], *, traced: bool) -> Run:
        """With the other program at its other end, which is the one that is read from unless this one writes."""
        with fifo(self.zygote.files.parent / "pipe") as path:
            if argv[argv.index("-") - 1] == "-o":
                other = self._started(self.pipe, stdin=path)
                return replace(self._started(argv, traced=traced, stdout=path), other=said_by(other))
            if self.pipe[0] == "cat":
                return replace(self._started(argv, traced=traced, stdin=path), other=cat(self.root, self.pipe[1], path))
            other = self._started(self.pipe, stdout=path)
            return replace(self._started(argv, traced=traced, stdin=path), other=said_by(other))

    def _started(
        self, argv: Sequence[str], *, traced: bool = False, stdin: Path | None = None, stdout: Path | None = None
    ) -> Run:
        return self.zygote.start(
            argv, cwd=self.root, env=self.environment, traced=traced, uid=self.uid, umask=self.umask,
            stdin=stdin, stdout=stdout,
        )  # fmt: skip

    def configure(self) -> None:
        """The configuration, with a password for both ends."""
        hosts = {"source": self.source, **({"dest": self.dest} if self.dest else {})}
        token = base64.b64encode(f"robot:{SECRET}".encode()).decode()
        registries = {name: {"url": f"http://{host}", "authfile": "auth.json"} for name, host in hosts.items()}
        settings = {**_CONFIG, **_HASTY} if self.hasty else _CONFIG
        (self.root / "regwrap.yaml").write_text(json.dumps({**settings, "registries": registries}))
        (self.root / "auth.json").write_text(json.dumps({"auths": {host: {"auth": token} for host in hosts.values()}}))

    def run(self, *argv: str) -> Ended:
        return self.start(*argv).ended()


@dataclass
class Ground:
    """`base` belongs to this worker alone."""

    base: Path
    zygote: Zygote
    source: LoopbackRegistry
    private_memory: bool
    undisturbed: dict[str, dict[str, str]] = field(default_factory=dict)
    lengths: dict[str, float] = field(default_factory=dict)
    part: tuple[int, int] = (0, 1)
    works: tuple[str, ...] = ()
    needed: set[str] = field(default_factory=set)
    _number: int = 0

    @property
    def templates(self) -> Path:
        return self.base / "templates"

    @contextmanager
    def place(self, scenario: Scenario, at: Path | None = None) -> Iterator[Place]:
        """A fresh case. `at`: in this directory (a disk under test) and not in the worker's own."""
        root = at or self.base / "case"
        self.lay(root, scenario)
        spared = {os.getpid(), self.zygote.process.pid}
        with ExitStack() as stack:
            dest = ""
            if scenario.dest:
                registry = stack.enter_context(self.registry(root / "dest"))
                dest, spared = registry.host, spared | {registry.pid}
            place = Place(
                root=root,
                source=self.source.host,
                dest=dest,
                zygote=self.zygote,
                spared=frozenset(spared),
                environment=self.environment(root),
                private_memory=self.private_memory,
                pipe=scenario.pipe,
            )
            place.configure()
            try:
                yield place
            finally:
                stack.close()
                clear(root, keep=at is not None)

    @contextmanager
    def registry(self, root: Path, extra: Mapping[str, object] | None = None) -> Iterator[LoopbackRegistry]:
        self._number += 1
        with served_loopback(root, scratch=self.base / f"registry/{self._number}", extra=extra) as registry:
            yield registry
        shutil.rmtree(self.base / f"registry/{self._number}", ignore_errors=True)

    def environment(self, root: Path) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": f"{root}/home",
            "TMPDIR": f"{root}/scratch",
            "LC_ALL": "C.UTF-8",
            "REGWRAP_CONFIG": f"{root}/regwrap.yaml",
        }

    def lay(self, root: Path, scenario: Scenario) -> None:
        root.mkdir(exist_ok=True)
        for name in ("home", "scratch"):
            (root / name).mkdir()
        for name in (LISTED, *scenario.needs):
            template = self.templates / name
            if template.is_dir():
                shutil.copytree(template, root / name)
            else:
                shutil.copy2(template, root / name)

    def result_of(self, scenario: Scenario) -> dict[str, str]:
        """What an undisturbed run leaves."""
        if scenario.name not in self.undisturbed:
            with self.place(scenario) as place:
                started = time.monotonic()
                ended = place.run(*scenario.args(place))
                self.lengths[scenario.name] = time.monotonic() - started
                assert ended.code == 0, (scenario.name, ended)
                self.undisturbed[scenario.name] = snapshot(place.root, scenario.results)
        return self.undisturbed[scenario.name]

    def moment(self, scenario: Scenario, hundredths: int) -> float:
        """Seconds from the start of a run to that part of it, as long as an undisturbed one takes here and now."""
        self.result_of(scenario)
        return self.lengths[scenario.name] * hundredths / 100


@contextmanager
def made_ground(base: Path, zygote: Zygote, *, private_memory: bool) -> Iterator[Ground]:
    """All templates, by regwrap itself where a test of its own proves what it makes."""
    templates = base / "templates"
    templates.mkdir(parents=True)
    ci = make_storage(base / "ci", NEW)
    for name in ("archive", "dest", "site"):
        make_storage(templates / name, OLD)
    make_storage(templates / "full", {**OLD, **NEW})
    (templates / LISTED).write_text("".join(f"{name}\n" for name in NEW))
    (templates / "kept.list").write_text("app:v2\nkeep/multi:1\nlib/tool:1\n")
    (templates / "old.list").write_text("".join(f"{name}\n" for name in OLD))
    (templates / "out").mkdir()
    with ExitStack() as stack:
        source = stack.enter_context(served_loopback(ci, scratch=base / "registry/source"))
        ground = Ground(base, zygote, source, private_memory)
        with ground.place(Scenario("templates", lambda _place: [], ("archive", "full"))) as place:
            (place.root / "volumes").mkdir()
            for argv in (
                ("package", LISTED, "-o", "bundle.tar", "--history", "./full"),
                ("package", f"{templates}/old.list", "-o", "old.tar", "--history", "./archive"),
                ("package", LISTED, "-o", "newer.tar", "--history", "./full", "--name", "newer"),
                ("package", f"{templates}/old.list", "-o", "older.tar", "--history", "./archive", "--name", "older"),
                ("package", LISTED, "-o", "delta.tar", "--history", "./full", "--since", "old.tar"),
                ("package", LISTED, "-o", "volumes/v.tar", "--history", "./full", "--volume-size", "60kB"),
                ("deploy", "newer.tar", "series"),
                ("deploy", "older.tar", "series", "--replace-tags"),
                ("export", "bundle.tar", "tree"),
            ):
                ended = place.run(*argv)
                assert ended.code == 0, ended
            shutil.copy2(place.root / "bundle.tar", templates / BUNDLE)
            shutil.copy2(place.root / "old.tar", templates / "out/release.tar")
            shutil.copy2(place.root / "old.tar", templates / "base.tar")
            shutil.copy2(place.root / "delta.tar", templates / "delta.tar")
            for name in ("tree", "series", "volumes"):
                shutil.copytree(place.root / name, templates / name)
        yield ground


def clear(root: Path, *, keep: bool = False) -> None:
    """Remove a case, whatever modes the fault left."""
    for directory, names, _files in os.walk(root):
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(0o755)
    if keep:
        for path in root.iterdir():
            if path.name != "lost+found":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    else:
        shutil.rmtree(root)


def snapshot(root: Path, names: tuple[str, ...]) -> dict[str, str]:
    """What a user has of a result: each file's mode and bytes. Not what is regwrap's or the registry's own."""
    found = {}
    for name in names:
        top = root / name
        paths = sorted(top.rglob("*")) if top.is_dir() else [top]
        for path in paths:
            parts = path.relative_to(root).parts
            if ".regwrap" in parts or "_uploads" in parts or not os.path.lexists(path):
                continue
            found["/".join(parts)] = _state(path)
    return found


def _state(path: Path) -> str:
    status = path.lstat()
    mode = stat.filemode(status.st_mode)
    if stat.S_ISREG(status.st_mode) and status.st_size > _HUGE:  # and no more than a hole
        return f"{mode} {status.st_size}"
    if stat.S_ISREG(status.st_mode):
        return f"{mode} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    return mode
