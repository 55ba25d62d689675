"""What costs by the list only stays so after years: sites of many releases, repositories of many tags."""

import os
import shutil
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import storage
from content import Layer, config_data, manifest_data
from corpus import Corpus
from measure import Case, Contender, Target
from scene import PEERS, Scene, make_empty
from servers import PROGRAM, Server, served_registry

_RELEASE: Final = "v1.0"
_YEARS: Final = (1, 5, 20, 50)
_IMAGES: Final = 16
_TAGS: Final = (500, 5_000)
_REPOSITORY: Final = "team/app"
_POWER: Final = 1.1


def years_cases(scene: Scene) -> Generator[Case, None, None]:
    if scene.missing_regwrap(PROGRAM, "tar"):
        return
    yield from _release_cases(scene)
    yield from _tag_cases(scene)


def _release_cases(scene: Scene) -> Generator[Case, None, None]:
    """The same list each time, at sites that have had one, five, twenty, fifty releases."""
    small = scene.other_corpus("few", _IMAGES, int(1.7e8 * scene.scale))
    roots = {years: scene.scratch / f"history-{years}" for years in _YEARS}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda years: _write_history(small, roots[years], years), roots))
    bundle = scene.scratch / "history.tar"
    scene.run_regwrap("package", f"{small.list_path(_RELEASE)}", "--archive", f"{small.registry}", "-o", f"{bundle}")
    with served_registry(scene.shell, small.registry) as source:
        contenders = [
            Contender(name=f"regwrap {name}", run=Command(scene, words), x=years)
            for years, root in roots.items()
            for name, words in _commands(small, source, root, bundle).items()
        ]
        yield Case(
            name="a site after years",
            note=f"{_IMAGES} images, {small.unique_bytes(_RELEASE):,} unique bytes; the releases before had others.",
            axis="releases at the site",
            rounds=scene.rounds,
            seconds=40 * scene.scale,
            contenders=tuple(contenders),
            targets=tuple(
                Target(
                    key="history", text=f"{name}, {_YEARS[-1]} releases there: at most 1.1 of the CPU at {_YEARS[1]}",
                    contender=f"regwrap {name}@{_YEARS[-1]}", against=(f"regwrap {name}@{_YEARS[1]}",), metric="cpu",
                    limit=1.1,
                )
                for name in _commands(small, source, roots[_YEARS[0]], bundle)
            ),
        )  # fmt: skip
    for root in roots.values():
        shutil.rmtree(root)
    bundle.unlink()


def _commands(small: Corpus, source: Server, root: Path, bundle: Path) -> dict[str, tuple[str, ...]]:
    images, ends = f"{small.list_path(_RELEASE)}", ("--source", source.host, "--archive", f"{root}")
    return {
        "package": ("package", images, "--archive", f"{root}", "-o", f"{bundle}"),
        "sync, unchanged": ("sync", images, *ends),
        "lock": ("lock", images, *ends, "-o", f"{bundle.with_suffix('.lock')}"),
        "deploy, unchanged": ("deploy", f"{bundle}", f"{root}"),
    }


@dataclass(frozen=True, slots=True)
class Command:
    scene: Scene
    words: tuple[str, ...]

    def __call__(self) -> None:
        self.scene.run_regwrap(*self.words)


def _write_history(small: Corpus, root: Path, times: int) -> None:
    """Old tags of the same repositories, each with blobs of its own, which are small: nobody reads them."""
    make_empty(root)
    storage.copy_part(small.registry, small.blobs(_RELEASE), root)
    for reference in small.references(_RELEASE):
        repository = reference.rpartition(":")[0]
        for number in range(1, times):
            _write_old_image(root, repository, f"v0.{number}")


def _write_old_image(root: Path, repository: str, tag: str) -> None:
    layers = []
    for number in range(5):
        blob = storage.add_blob(root, f"{repository}:{tag} {number}".encode())
        layers.append(Layer(blob, blob.hex))
    config = storage.add_blob(root, config_data(f"{repository}:{tag}", "amd64", layers))
    manifest = storage.add_blob(root, manifest_data("oci", config, layers))
    storage.link_layers(root, repository, [config, *(layer.blob for layer in layers)])
    storage.link_manifest(root, repository, manifest)
    storage.set_tag(root, repository, tag, manifest)


def _tag_cases(scene: Scene) -> Generator[Case, None, None]:
    """A repository with all tags that it ever had, each its own image."""
    contenders: list[Contender] = []
    roots = {count: scene.scratch / f"tags-{count}" for count in (max(50, round(n * scene.scale)) for n in _TAGS)}
    for count, root in roots.items():
        make_empty(root)
        for number in range(count):
            _write_old_image(root, _REPOSITORY, f"v{number}")
        images = scene.scratch / f"{root.name}.list"
        images.write_text("".join(f"{_REPOSITORY}:v{number}\n" for number in range(count)))
        few = scene.scratch / f"{root.name}-few.list"
        few.write_text(f"{_REPOSITORY}:v7\n")
        lock = ("lock", f"{images}", "--source", f"{root}", "-o", f"{images}.lock")
        scene.run_regwrap(*lock)
        pages = [sys.executable, f"{PEERS / 'page_tags.py'}", scene.regwrap[0], f"{root}", _REPOSITORY, f"{count}"]
        contenders += [
            Contender(name="regwrap lock, again", run=Command(scene, lock), x=count),
            Contender(
                name="regwrap verify --list", run=Command(scene, ("verify", f"{root}", "--list", f"{few}")), x=count
            ),
            Contender(name="serve, by pages of 100", run=_Started(scene, pages), x=count),
        ]
    least, most = roots
    yield Case(
        name="a repository of many tags",
        note="Each tag is an image of its own, with five layers.",
        axis="tags in the repository",
        rounds=scene.rounds,
        seconds=40 * scene.scale,
        contenders=tuple(contenders),
        targets=tuple(
            Target(
                key="tags", text=f"{name}, {most:,} tags: from {least:,} it grows with the power {_POWER} at most",
                contender=f"{name}@{most}", against=(f"{name}@{least}",), limit=(most / least) ** _POWER,
            )
            for name in dict.fromkeys(contender.name for contender in contenders)
        ),
    )  # fmt: skip
    for root in roots.values():
        shutil.rmtree(root)


@dataclass(frozen=True, slots=True)
class _Started:
    scene: Scene
    argv: list[str]

    def __call__(self) -> None:
        self.scene.shell.run(self.argv)
