"""Garbage: a storage of 5,000 small blobs, half of them garbage, against the registry's own collector.

The garbage is what a DELETE of a manifest leaves, since the registry's collector sees no other: blobs and links to
layers without tag and revision. It leaves those links, which dangle then; regwrap removes them as well.
"""

import json
import os
import shutil
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import storage
from content import Blob, Layer, config_data, manifest_data
from measure import Case, Contender, Target, WrongResultError
from scene import Scene, make_empty
from servers import PROGRAM, registry_config

_REPOSITORIES: Final = 50
_LAYERS: Final = 48  # with config and manifest 50 blobs an image, two images a repository


def gc_cases(scene: Scene) -> Generator[Case, None, None]:
    repositories = max(2, round(_REPOSITORIES * scene.scale))
    template, mine, theirs = (scene.scratch / name for name in ("gc-storage", "gc-regwrap", "gc-registry"))
    _generate(template, repositories)
    config = scene.shell.home / "gc.yml"
    config.write_text(json.dumps(registry_config(theirs)))
    yield Case(
        name="gc, half is garbage",
        note=f"{100 * repositories:,} blobs in {repositories} repositories. regwrap also removes the links.",
        rounds=scene.rounds,
        seconds=20,
        contenders=(
            Contender(
                name="regwrap gc",
                prepare=lambda: _copy(scene, template, mine),
                run=lambda: scene.run_regwrap("gc", f"{mine}", "--offline"),
                prove=lambda: _prove(mine, repositories),
                missing=scene.missing_regwrap(),
            ),
            Contender(
                name="registry's collector",
                prepare=lambda: _copy(scene, template, theirs),
                run=lambda: scene.shell.run([PROGRAM, "garbage-collect", f"{config}"]),
                prove=lambda: _prove(theirs, repositories),
                missing=scene.missing(PROGRAM),
            ),
        ),
    )
    for directory in (template, mine, theirs):
        shutil.rmtree(directory, ignore_errors=True)
    yield _releases_case(scene)


def _releases_case(scene: Scene) -> Case:
    """What a site remembers must not make gc dearer than lists of the same images do. Nothing is removed: what is
    measured is the deciding."""
    images, count = max(5, round(183 * scene.scale)), max(3, round(50 * scene.scale))
    site, lists = scene.scratch / "gc-releases", scene.scratch / "gc-lists"
    keep = [word for number in range(count) for word in ("--keep", f"{lists / f'{number}.list'}")]
    return Case(
        name=f"gc, {count} releases of {images} images are kept",
        note="A tenth of the images changes with each release. Nothing is removed: only the deciding differs.",
        rounds=scene.rounds,
        seconds=20,
        targets=(
            Target(
                key="gc-releases",
                text="gc of what a site remembers: at most 1.2 of gc with its lists",
                contender="--keep-releases",
                against=("--keep of the lists",),
                limit=1.2,
            ),
        ),
        contenders=(
            Contender(
                name="--keep-releases",
                prepare=lambda: _note_releases(scene, site, lists, images, count),
                run=lambda: scene.run_regwrap("gc", f"{site}", "--offline", "--dry-run", "--keep-releases", f"{count}"),
                prove=lambda: None,
                missing=scene.missing_regwrap(),
            ),
            Contender(
                name="--keep of the lists",
                prepare=lambda: _note_releases(scene, site, lists, images, count),
                run=lambda: scene.run_regwrap("gc", f"{site}", "--offline", "--dry-run", *keep),
                prove=lambda: None,
                missing=scene.missing_regwrap(),
            ),
        ),
    )


def _note_releases(scene: Scene, site: Path, lists: Path, images: int, count: int) -> None:
    """Once: each release is packed and adopted, a tenth of its images new."""
    if lists.exists():
        return
    lists.mkdir()
    bundle = lists / "release.tar"
    now = {number: _write_image(site, number, 0) for number in range(images)}
    for release in range(count):
        changed = range(release * images // 10, (release + 1) * images // 10) if release else ()
        now |= {number % images: _write_image(site, number % images, release) for number in changed}
        listed = lists / f"{release}.list"
        listed.write_text("".join(f"{name}\n" for name in now.values()))
        words = ("--archive", f"{site}", "--no-hash", "--name", f"acme-{release}", "-o", f"{bundle}")
        scene.run_regwrap("package", f"{listed}", *words)
        scene.run_regwrap("releases", f"{site}", "--adopt", f"{bundle}")


def _write_image(root: Path, number: int, release: int) -> str:
    name, tag = f"team-{number % 20:02}/app-{number:03}", f"v{release}"
    layers = [storage.add_blob(root, f"{label}".encode()) for label in ("base", f"{name}:{tag}")]
    stack = [Layer(blob, blob.hex) for blob in layers]
    config = storage.add_blob(root, config_data(f"{name}:{tag}", "amd64", stack))
    manifest = storage.add_blob(root, manifest_data("oci", config, stack))
    storage.link_layers(root, name, [*layers, config])
    storage.link_manifest(root, name, manifest)
    storage.set_tag(root, name, tag, manifest)
    return f"{name}:{tag}"


def _generate(root: Path, repositories: int) -> None:
    make_empty(root)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda number: _write_repository(root, number), range(repositories)))


def _write_repository(root: Path, number: int) -> None:
    name = f"team-{number % 20:02}/app-{number:04}"
    for tag in ("kept", "gone"):
        blobs = list(_write_blobs(root, f"{name}:{tag}"))
        storage.link_layers(root, name, blobs[:-1])
        if tag == "kept":
            storage.link_manifest(root, name, blobs[-1])
            storage.set_tag(root, name, tag, blobs[-1])


def _write_blobs(root: Path, label: str) -> Iterator[Blob]:
    """Layers, config, manifest. A collector reads no layer, so a few bytes will do."""
    stack = []
    for number in range(_LAYERS):
        blob = storage.add_blob(root, f"{label} {number}".encode())
        stack.append(Layer(blob, blob.hex))
        yield blob
    config = storage.add_blob(root, config_data(label, "amd64", stack))
    yield config
    yield storage.add_blob(root, manifest_data("oci", config, stack))


def _copy(scene: Scene, template: Path, directory: Path) -> None:
    make_empty(directory)
    scene.shell.run(["cp", "-a", f"{template}/.", f"{directory}"])


def _prove(root: Path, repositories: int) -> None:
    left = sum("data" in names for _, _, names in os.walk(root / "docker/registry/v2/blobs"))
    if left != repositories * (_LAYERS + 2):
        raise WrongResultError(f"{root.name}: {left} blobs are left instead of {repositories * (_LAYERS + 2)}")
