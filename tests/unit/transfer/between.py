"""Two registries in the test's own process, and a skopeo that does between them what its command line says."""

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from regwrap.commands.sync import SyncOptions, SyncResult, sync_images
from regwrap.core.listener import Outlook, Silent
from regwrap.core.location import Engine, Location, Registry, Timeouts
from regwrap.core.manifest import Index, parse_manifest
from regwrap.lists.imagelist import parse_images
from regwrap.storage.store import Storage
from regwrap.tools.retry import Retry, RetryPolicy
from regwrap.transfer.job import Job
from regwrap.transfer.plan import Copy, Unseen
from regwrap.transfer.run import SyncReport
from tests.builders import Image
from tests.fakeregistry import FakeRegistry, fake_registry
from tests.fakes import Answer, Argv, Scripted
from tests.unit.transfer.test_sync import Heard


@dataclass
class Told(Silent, Heard):
    """Keeps the log, and what is expected."""

    lines: list[str] = field(default_factory=list)
    expected: list[tuple[str, int]] = field(default_factory=list)

    def log(self, text: str, /) -> None:
        self.lines.append(text)

    def expect(self, step: str, expected: int, /) -> None:
        self.expected.append((step, expected))

    def watch(self, look: Callable[[], Outlook], /) -> None:
        self.looks.append(look)


@dataclass
class Between:
    """`source` has what tests put there; `dest` is the archive, or the directory `root` is. `skopeo` did what was asked
    for, once `before` has heard of it, and leaves out what `lost` names, whatever its exit code."""

    source: FakeRegistry
    dest: FakeRegistry
    scripted: Scripted
    root: Path
    told: Told = field(default_factory=Told)
    lost: set[str] = field(default_factory=set)
    before: Callable[[Argv], None] = lambda _argv: None
    attempts: int = 1

    @property
    def storage(self) -> Storage:
        return Storage(self.root)

    def job(
        self, engine: Engine = Engine.AUTO, *, archive: Location | None = None, source: Location | None = None
    ) -> Job:
        runner = self.scripted.runner
        policy = RetryPolicy(attempts=self.attempts, wait=0.0001, max_wait=0.0001)
        return Job(
            runner=runner,
            scratch=runner.scratch,
            source=source or self.place(self.source),
            archive=archive or self.place(self.dest),
            location_of=lambda host: Location(name=host, registry=plain(host)),
            jobs=1,
            retry=Retry(policy, runner.stopping),
            timeouts=Timeouts(),
            environment=(),
            listener=self.told,
            engine=engine,
        )

    def place(self, registry: FakeRegistry) -> Location:
        return Location(name=registry.host, registry=plain(registry.host))

    @property
    def directory(self) -> Location:
        return Location(name="archive", storage=self.root)

    def run(self, job: Job, *lines: str, options: SyncOptions | None = None) -> SyncResult:
        return sync_images(job, parse_images("\n".join(lines).encode(), "images.list"), options or SyncOptions())

    def seen(self, job: Job, line: str) -> Unseen:
        """What is said of an image that cannot be looked at."""
        (unseen,) = self.run(job, line, options=SyncOptions(dry_run=True)).plan.unseen
        return unseen

    def sync(self, job: Job, *lines: str, options: SyncOptions | None = None) -> SyncReport:
        """Nothing may fail."""
        report = self.run(job, *lines, options=options).report
        assert report is not None
        assert report.failed == ()
        return report

    def failure(self, job: Job, *lines: str) -> str:
        """What is said of the one image that fails, and what to do."""
        report = self.run(job, *lines).report
        assert report is not None
        (failed,) = report.failed
        return f"{failed.error} {failed.hint}"

    def copy_of(self, job: Job, line: str) -> Copy:
        (copy,) = self.run(job, line, options=SyncOptions(dry_run=True)).plan.copies
        return copy

    def started(self, command: str) -> list[Argv]:
        return [argv for argv in self.scripted.launcher.argvs if command in argv]

    def answers(self, command: str, exit_code: int = 0) -> None:
        effect = {"copy": self._copy, "sync": self._sync}[command]
        self.scripted.launcher.answers.append(
            Answer(
                when=lambda argv: argv[0] == "skopeo" and command in argv,
                exit_code=exit_code,
                stderr=b'level=fatal msg="some images could not be copied"' if exit_code else b"",
                effect=effect,
                repeats=True,
            )
        )

    def _copy(self, argv: Argv) -> None:
        self.before(argv)
        (host, repository, reference), (_dest, name, tag) = _parts(argv[-2]), _parts(argv[-1])
        self._bring(host, repository, reference, f"{name}:{tag}")

    def _sync(self, argv: Argv) -> None:
        self.before(argv)
        (host, asked) = next(iter(json.loads(Path(argv[-2]).read_bytes()).items()))
        prefix = argv[-1].partition("/")[2]
        for repository, tags in asked["images"].items():
            name = "/".join(part for part in (prefix, repository.rpartition("/")[2]) if part)
            for tag in tags:
                self._bring(host, repository, tag, f"{name}:{tag}")

    def _bring(self, host: str, repository: str, reference: str, name: str) -> None:
        if name in self.lost:
            return
        self.dest.hold(name, image_at(host, repository, reference))


@contextmanager
def between(scripted: Scripted, root: Path, images: Mapping[str, Image] | None = None) -> Iterator[Between]:
    """`images` are what the source has."""
    with fake_registry() as source, fake_registry() as dest:
        for name, image in (images or {}).items():
            source.hold(name, image)
        yield Between(source, dest, scripted, root)


def plain(host: str) -> Registry:
    return Registry(host=host, tls_verify=False, plain_http=True)


def image_at(host: str, repository: str, reference: str) -> Image:
    """All that belongs to an image, as any client would read it."""
    raw = _got(host, f"/v2/{repository}/manifests/{reference}")
    manifest = parse_manifest(raw)
    if isinstance(manifest, Index):
        children = [image_at(host, repository, f"{child.digest}") for child in manifest.manifests]
        inner = dict.fromkeys(raw for child in children for raw in child.manifests)
        return Image((*inner, raw), tuple(dict.fromkeys(blob for child in children for blob in child.blobs)))
    return Image((raw,), tuple(_got(host, f"/v2/{repository}/blobs/{blob.digest}") for blob in manifest.blobs))


def _got(host: str, path: str) -> bytes:
    with closing(http.client.HTTPConnection(host, timeout=10)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200, (path, answer.status)
        return answer.read()


def _parts(url: str) -> tuple[str, str, str]:
    """HOST, REPOSITORY, and the tag or digest, of docker://HOST/REPOSITORY:TAG or @DIGEST."""
    host, _, name = url.removeprefix("docker://").partition("/")
    repository, _, reference = name.partition("@") if "@" in name else name.rpartition(":")
    return host, repository, reference
