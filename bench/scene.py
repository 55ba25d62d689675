"""What all cases share: the corpus, a scratch directory, the programs, and proofs of what they did."""

import contextlib
import os
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import storage
from corpus import Corpus
from measure import WrongResultError
from shell import Shell, find_program


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One run of the benchmark on one corpus; `scale` of 1.0 is the full size, for what is not made of the corpus."""

    shell: Shell
    corpus: Corpus
    scratch: Path
    regwrap: tuple[str, ...]
    rounds: int
    cold_rounds: int
    scale: float

    def missing(self, *programs: str) -> str:
        """Why a contender that needs these programs cannot run; empty if it can."""
        absent = [name for name in programs if find_program(name) is None]
        return f"not found: {', '.join(absent)}" if absent else ""

    def missing_regwrap(self, *programs: str) -> str:
        return self.missing(self.regwrap[0], *programs).replace(self.regwrap[0], "regwrap (set REGWRAP)")

    def run_regwrap(self, *arguments: str) -> None:
        self.shell.run([*self.regwrap, *arguments])


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


def split_references(references: Iterable[str]) -> list[tuple[str, str]]:
    pairs = [reference.rpartition(":") for reference in references]
    return [(repository, tag) for repository, _, tag in pairs]
