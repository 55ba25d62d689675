"""What all cases share: the corpora, a scratch directory, the programs, and proofs of what they did."""

import contextlib
import os
import shlex
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

import storage
from corpus import Corpus, ensure_corpus
from family import RELEASES, Parameters
from measure import WrongResultError
from shell import Shell, find_program

PEERS: Final = Path(__file__).resolve().parent / "peers"
_SEED: Final = 1


@dataclass(frozen=True, kw_only=True)  # no slots: the corpus is made once
class Scene:
    """One run of the benchmark on one corpus, which is made when it is first wanted. `scale` of 1.0 is the full size,
    for what is not made of the corpus.
    `whole`: only some groups run, so that there is time for the whole corpus where else a part of it does.
    `before`: the regwrap of another checkout, measured beside `regwrap` where there is one."""

    shell: Shell
    work: Path
    scratch: Path
    regwrap: tuple[str, ...]
    rounds: int
    scale: float
    whole: bool = False
    before: tuple[str, ...] = ()

    @cached_property
    def corpus(self) -> Corpus:
        parameters = Parameters(max(10, round(183 * self.scale)), int(2e9 * self.scale), _SEED, RELEASES[-1])
        return ensure_corpus(self.work / "corpus", parameters)

    def missing(self, *programs: str) -> str:
        """Why a contender that needs these programs cannot run; empty if it can."""
        absent = [name for name in programs if find_program(name) is None]
        return f"not found: {', '.join(absent)}" if absent else ""

    def missing_regwrap(self, *programs: str) -> str:
        return self.missing(self.regwrap[0], *programs).replace(self.regwrap[0], "regwrap (set REGWRAP)")

    def run_regwrap(self, *arguments: str) -> None:
        self.shell.run([*self.regwrap, *arguments])

    def run_peer(self, script: str, *arguments: object) -> None:
        self.shell.run([f"{PEERS / script}", *map(str, arguments)])

    def bare(self, *arguments: object) -> Callable[[], None]:
        """What only has to be done; `arguments` as peers/bare_transfer.py has them."""
        return lambda: self.shell.run([sys.executable, f"{PEERS / 'bare_transfer.py'}", *map(str, arguments)])

    def other_corpus(self, name: str, images: int, size: int) -> Corpus:
        """A second one with the first release alone, kept beside the first."""
        return ensure_corpus(self.work / name, Parameters(images, size, _SEED, RELEASES[0]))

    def first_lines(self, corpus: Corpus, count: int) -> Path:
        """A list of the first images of v1.0."""
        path = self.scratch / f"{corpus.root.name}-{count}.list"
        path.write_text("".join(f"{line}\n" for line in corpus.references(RELEASES[0])[:count]))
        return path


def warm(paths: Iterable[Path]) -> None:
    """What was written yesterday is not in the page cache, and no contender is to pay for it."""
    buffer = bytearray(1 << 20)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def chill(path: Path) -> None:
    """Out of the page cache; what is not yet on the disk stays in it, so sync first."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def find_regwrap() -> tuple[str, ...]:
    """REGWRAP may hold several words; else the one in the virtual environment of this checkout."""
    beside = Path(__file__).resolve().parent.parent / ".venv/bin/regwrap"
    return tuple(shlex.split(os.environ.get("REGWRAP", ""))) or (f"{beside}",)


def make_empty(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)
    directory.mkdir(parents=True)


def prove_blobs(corpus: Corpus, release: str, root: Path) -> None:
    """Each blob of the release is in the storage, with its size."""
    absent = list(storage.absent_blobs(root, corpus.blobs(release), corpus.registry))
    if absent:
        raise WrongResultError(f"{root.name} lacks {len(absent)} blobs of {release}, {absent[0]} for one")


def prove_storage(corpus: Corpus, release: str, root: Path, *, scoped: bool = True) -> None:
    """Blobs and tags; unscoped `skopeo sync` keeps only the last component of a repository."""
    prove_blobs(corpus, release, root)
    for repository, tag in split_references(corpus.references(release)):
        name = repository if scoped else PurePosixPath(repository).name
        if storage.tag_digest(root, name, tag) != storage.tag_digest(corpus.registry, repository, tag):
            raise WrongResultError(f"{root.name}: {name}:{tag} is absent or another image")


def prove_tags(corpus: Corpus, release: str, root: Path) -> None:
    """Docker pushes images of its own making, so only their names can be compared."""
    for pair in split_references(corpus.references(release)):
        if storage.tag_digest(root, *pair) is None:
            raise WrongResultError(f"{root.name}: {':'.join(pair)} is absent")


def prove_bundle(corpus: Corpus, release: str, bundle: Path, *, exact: bool = True) -> None:
    """The release and nothing else is in the tar; without `exact` only the names are compared."""
    blobs, tags = _read_bundle(bundle)
    registry = corpus.registry
    wanted = {os.fspath(storage.tag_path(*x)): storage.tag_digest(registry, *x) for x in _pairs(corpus, release)}
    if (tags != wanted) if exact else (tags.keys() != wanted.keys()):
        raise WrongResultError(f"{bundle.name} has not exactly the tags of {release}")
    if exact and blobs != {path: (registry / path).stat().st_size for path in corpus.blobs(release)}:
        raise WrongResultError(f"{bundle.name} has not exactly the blobs of {release}")


def _pairs(corpus: Corpus, release: str) -> Sequence[tuple[str, str]]:
    return split_references(corpus.references(release))


def _read_bundle(bundle: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Sizes of all blobs and digests of all tags by path."""
    blobs: dict[str, int] = {}
    tags: dict[str, str] = {}
    with tarfile.open(bundle, "r:") as tar:
        for member in filter(tarfile.TarInfo.isreg, tar):
            if member.name.endswith("/data"):
                blobs[member.name] = member.size
            elif member.name.endswith("/current/link") and (link := tar.extractfile(member)):
                tags[member.name] = link.read().decode()
    return blobs, tags


def split_references(references: Iterable[str]) -> list[tuple[str, str]]:
    pairs = [reference.rpartition(":") for reference in references]
    return [(repository, tag) for repository, _, tag in pairs]
