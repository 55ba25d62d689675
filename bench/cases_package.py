"""Package and selection: against `cat`, against the shell, and how they grow with list, history and blobs."""

import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import storage
from cases_years import Command, years_cases
from content import Layer, config_data, layer_data, manifest_data
from measure import Case, Contender, Target, WrongResultError
from meter import Watch
from scene import PEERS, Scene, make_empty, prove_bundle, warm
from servers import PROGRAM, served_registry

_RELEASE: Final = "v1.0"
_PACKAGE: Final = "regwrap package"
_SYNC: Final = "regwrap sync, unchanged"
_CAT: Final = "cat + fsync"
_LENGTHS: Final = (10, 50, 183, 500, 1000, 2000)
_SIZES: Final = (1_000, 32_000, 1_000_000, 32_000_000, 1_000_000_000)
_MOST_BLOBS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A list to be packed from a storage; `blobs` are below it."""

    scene: Scene
    root: Path
    images: Path
    blobs: tuple[str, ...]
    output: Path

    def regwrap(self) -> None:
        self.scene.run_regwrap("package", f"{self.images}", "--archive", f"{self.root}", "-o", f"{self.output}")

    def join(self) -> None:
        names = self.scene.scratch / "blob-names"
        names.write_text("".join(f"{name}\0" for name in self.blobs))
        with self.output.open("wb") as out:
            self.scene.shell.run(["xargs", "-0", "cat"], cwd=self.root, stdin=names, stdout=out)
            os.fsync(out.fileno())

    def prepare(self) -> None:
        self.output.unlink(missing_ok=True)
        warm(self.root / name for name in self.blobs)

    def prove(self) -> None:
        wanted = sum((self.root / name).stat().st_size for name in self.blobs)
        if self.output.stat().st_size < wanted:
            raise WrongResultError(f"{self.output.name} is smaller than the blobs of the list")

    def contenders(self, x: float | None = None) -> tuple[Contender, Contender]:
        watch = Watch(leaves=(self.output,))
        mine = Contender(
            name=_PACKAGE, run=self.regwrap, prepare=self.prepare, prove=self.prove, x=x, watch=watch,
            missing=self.scene.missing_regwrap("tar"),
        )  # fmt: skip
        return mine, replace(mine, name=_CAT, run=self.join, missing="")


def package_cases(scene: Scene) -> Generator[Case, None, None]:
    corpus, work = scene.corpus, scene.scratch / "selected"
    job = _Job(
        scene=scene, root=corpus.registry, images=corpus.list_path(_RELEASE), blobs=tuple(corpus.blobs(_RELEASE)),
        output=scene.scratch / "release.tar",
    )  # fmt: skip
    mine, cat = job.contenders()

    def empty() -> None:
        job.prepare()
        make_empty(work)

    shell = Contender(
        name="shell_selection.sh",
        run=lambda: scene.run_peer("shell_selection.sh", job.root, job.images, work, job.output),
        prepare=empty,
        prove=lambda: prove_bundle(corpus, _RELEASE, job.output),
        watch=Watch(leaves=(work, job.output)),
        rounds=1,
    )
    yield Case(
        name="package",
        note="With every byte hashed, from an archive that is in the page cache.",
        rounds=scene.rounds + 2,
        seconds=55 * scene.scale,
        contenders=(replace(mine, prove=lambda: prove_bundle(corpus, _RELEASE, job.output)), cat, shell),
        targets=(
            Target(
                key="package", text="package, hashing on: at most 1.15 of cat + fsync of the same blobs",
                contender=_PACKAGE, against=(_CAT,), limit=1.15,
            ),
            Target(
                key="memory-package", text="memory of regwrap itself, package: at most 120 MB",
                contender=_PACKAGE, metric="own_memory", unit=1e6, limit=120,
            ),
        ),
    )  # fmt: skip
    yield _selection_case(scene, job, work)
    job.output.unlink(missing_ok=True)
    make_empty(work)


def _selection_case(scene: Scene, job: _Job, work: Path) -> Case:
    python = scene.regwrap[0].replace("/regwrap", "/python")
    return Case(
        name="choosing the files",
        note="Without tar: a start of Python and the function that `package` calls, against the shell's tree.",
        rounds=scene.rounds,
        seconds=20 * scene.scale,
        contenders=(
            Contender(
                name="regwrap's selection",
                run=lambda: scene.shell.run([python, f"{PEERS / 'choose_files.py'}", f"{job.root}", f"{job.images}"]),
                missing=scene.missing(python),
            ),
            Contender(
                name="shell_selection.sh",
                run=lambda: scene.run_peer("shell_selection.sh", job.root, job.images, work),
                prepare=lambda: make_empty(work),
                prove=lambda: _prove_tree(job, work / "tree"),
            ),
        ),
        targets=(
            Target(
                key="selection", text="choosing the files: at least 20x faster than the sequel's shell selection",
                contender="regwrap's selection", against=("shell_selection.sh",), limit=1 / 20,
            ),
        ),
    )  # fmt: skip


def _prove_tree(job: _Job, tree: Path) -> None:
    absent = list(storage.absent_blobs(tree, job.blobs, job.root))
    if absent:
        raise WrongResultError(f"the tree lacks {len(absent)} blobs")


def growth_cases(scene: Scene) -> Generator[Case, None, None]:
    yield from years_cases(scene)
    yield from _length_cases(scene)
    yield from _size_cases(scene)


@dataclass(frozen=True, slots=True)
class _Exists:
    path: Path

    def __call__(self) -> None:
        if not self.path.is_file():
            raise WrongResultError(f"{self.path.name} is absent")


def _length_cases(scene: Scene) -> Generator[Case, None, None]:
    """Small images, so that what an image costs is seen, not what its bytes cost. The archive is the source's storage:
    nothing is to be done, which has to be found out."""
    most = max(50, round(_LENGTHS[-1] * scene.scale))
    long = scene.other_corpus("long", most, most * 20_000)
    lengths = [length for length in _LENGTHS if length < most] + [most]
    output = scene.scratch / "long.tar"
    if scene.missing(PROGRAM):
        return
    with served_registry(scene.shell, long.registry) as source:
        contenders, archive = [], ("--archive", f"{long.registry}")
        for length in lengths:
            images = scene.first_lines(long, length)
            contenders += [
                Contender(
                    name=_PACKAGE,
                    run=Command(scene, ("package", f"{images}", *archive, "-o", f"{output}")),
                    prove=_Exists(output), x=length, missing=scene.missing_regwrap("tar"),
                ),
                Contender(
                    name=_SYNC,
                    run=Command(scene, ("sync", f"{images}", "--source", source.host, *archive)),
                    x=length, missing=scene.missing_regwrap("skopeo"), watch=Watch(source=source),
                ),
            ]  # fmt: skip
        yield Case(
            name="by length of the list",
            note=f"{most:,} images of 20 kB on average.",
            axis="images in the list",
            rounds=scene.rounds,
            seconds=15 * scene.scale,
            contenders=tuple(contenders),
            targets=tuple(
                Target(
                    key=f"memory-long-{key}",
                    text=f"memory of regwrap itself, {key} of {most:,} images: at most 250 MB",
                    contender=f"{name}@{most}", metric="own_memory", unit=1e6, limit=250,
                )
                for key, name in (("package", _PACKAGE), ("sync", _SYNC))
            ),
        )  # fmt: skip
    output.unlink(missing_ok=True)


def _size_cases(scene: Scene) -> Generator[Case, None, None]:
    roots: list[Path] = []
    contenders: list[Contender] = []
    for size in _SIZES:
        root = scene.scratch / f"blobs-{size}"
        roots.append(root)
        wanted = max(1, int(size * scene.scale)) if size == _SIZES[-1] else size
        count = max(1, min(round(_MOST_BLOBS * scene.scale), int(3e8 * scene.scale) // wanted))
        images, blobs = _write_sized(scene, root, wanted, count)
        job = _Job(scene=scene, root=root, images=images, blobs=blobs, output=scene.scratch / "sized.tar")
        contenders += [replace(x, units=count) for x in job.contenders(wanted)]
    yield Case(
        name="package, by size of the blobs",
        note="Seconds for one blob: packing many of the size, divided by their number.",
        axis="bytes of a blob",
        rounds=scene.rounds,
        seconds=30 * scene.scale,
        contenders=tuple(contenders),
    )
    for root in roots:
        shutil.rmtree(root)
    (scene.scratch / "sized.tar").unlink(missing_ok=True)


def _write_sized(scene: Scene, root: Path, size: int, count: int) -> tuple[Path, tuple[str, ...]]:
    """Images of fifty layers of this size; returns their list and all blobs."""
    make_empty(root)
    references, paths = [], []
    for start in range(0, count, 50):
        name = f"sized/app-{start}"
        layers = []
        for number in range(start, min(start + 50, count)):
            layer, data = layer_data(1, f"{size}-{number}", size)
            storage.add_blob(root, data)
            layers.append(layer)
        blobs = list(_finish_image(root, name, layers))
        paths += [os.fspath(storage.blob_path(hex_digest)) for hex_digest in blobs]
        references.append(f"{name}:1\n")
    images = scene.scratch / f"{root.name}.list"
    images.write_text("".join(references))
    return images, tuple(paths)


def _finish_image(root: Path, name: str, layers: Sequence[Layer]) -> Iterator[str]:
    config = storage.add_blob(root, config_data(name, "amd64", layers))
    manifest = storage.add_blob(root, manifest_data("oci", config, layers))
    storage.link_layers(root, name, [config, *(layer.blob for layer in layers)])
    storage.link_manifest(root, name, manifest)
    storage.set_tag(root, name, "1", manifest)
    yield from (blob.hex for blob in (manifest, config, *(layer.blob for layer in layers)))
