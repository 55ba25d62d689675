"""Generates a corpus: the storage directory of a registry full of made-up images, and their lists.

    python bench/corpus.py DIR [--images 183] [--size 2.0G] [--seed 1] [--release v1.10]

Same parameters, same bytes. DIR/corpus.json says what DIR holds; it says `complete` only at the end.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import storage
from content import Blob, Layer, config_data, index_data, layer_data, manifest_data
from family import RELEASES, ImageSpec, Parameters, layer_sizes, plan_release, releases_until

# Raised when the generator makes other bytes from the same parameters.
_FORMAT: Final = 2
_UNITS: Final = {"K": 10**3, "M": 10**6, "G": 10**9}


class ForeignDirectoryError(Exception):
    """The directory holds a registry that no generator of ours made: not ours to delete."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A complete corpus on disk."""

    root: Path

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    def list_path(self, release: str) -> Path:
        return self.root / f"images-{release}.list"

    def references(self, release: str) -> list[str]:
        return self.list_path(release).read_text().splitlines()

    def unique_bytes(self, release: str) -> int:
        return sum((self.registry / path).stat().st_size for path in self.blobs(release))

    def blobs(self, release: str) -> list[str]:
        """Paths of all blobs of the release's list, manifests included, below `registry`."""
        return (self.root / f"blobs-{release}.list").read_text().splitlines()


def ensure_corpus(root: Path, parameters: Parameters) -> Corpus:
    """The corpus for these parameters; made if it is not there yet."""
    marker = root / "corpus.json"
    wanted = {"format": _FORMAT, **asdict(parameters)}
    if _read_marker(marker) != {**wanted, "complete": True}:
        _clear(root, marker)
        _write_marker(marker, {**wanted, "complete": False})
        _generate(root, parameters)
        os.sync()
        _write_marker(marker, {**wanted, "complete": True})
    return Corpus(root)


def _clear(root: Path, marker: Path) -> None:
    registry = root / "registry"
    if registry.exists():
        if not marker.exists():
            raise ForeignDirectoryError(f"{registry} exists but {marker.name} does not")
        shutil.rmtree(registry)
    for stale in root.glob("*-v*.list"):
        stale.unlink()
    registry.mkdir(parents=True)


def _generate(root: Path, parameters: Parameters) -> None:
    registry = root / "registry"
    layers = _write_layers(registry, parameters)
    written: dict[str, list[Blob]] = {}
    for release in releases_until(parameters.release):
        images = plan_release(parameters, release)
        for image in images:
            if image.reference not in written:
                written[image.reference] = list(_write_image(registry, image, layers))
        blobs = {blob.hex for image in images for blob in written[image.reference]}
        _write_lines(root / f"images-{release}.list", [image.reference for image in images])
        _write_lines(root / f"blobs-{release}.list", sorted(map(_path_text, blobs)))


def _path_text(hex_digest: str) -> str:
    return os.fspath(storage.blob_path(hex_digest))


def _write_layers(registry: Path, parameters: Parameters) -> dict[str, Layer]:
    sizes = layer_sizes(parameters)

    def write(label: str) -> Layer:
        layer, data = layer_data(parameters.seed, label, sizes[label])
        storage.add_blob(registry, data)
        return layer

    # Hashing and writing release the interpreter's lock, so two workers use two cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(sizes, pool.map(write, sizes), strict=True))


def _write_image(registry: Path, image: ImageSpec, layers: Mapping[str, Layer]) -> Iterator[Blob]:
    """Writes manifests and links, and yields every blob of the image."""
    manifests: dict[str, Blob] = {}
    for architecture, labels in image.layers.items():
        stack = [layers[label] for label in labels]
        config = storage.add_blob(registry, config_data(image.repository, architecture, stack))
        blobs = [config, *(layer.blob for layer in stack)]
        storage.link_layers(registry, image.repository, blobs)
        yield from blobs
        manifests[architecture] = storage.add_blob(registry, manifest_data(image.kind, config, stack))
    yield from _write_tag(registry, image, manifests)


def _write_tag(registry: Path, image: ImageSpec, manifests: Mapping[str, Blob]) -> list[Blob]:
    found = list(manifests.values())
    if len(found) > 1:
        found.append(storage.add_blob(registry, index_data(manifests)))
    for manifest in found:
        storage.link_manifest(registry, image.repository, manifest)
    storage.set_tag(registry, image.repository, image.tag, found[-1])
    return found


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def _read_marker(marker: Path) -> object:
    try:
        return json.loads(marker.read_text())
    except (OSError, ValueError):
        return None


def _write_marker(marker: Path, value: Mapping[str, object]) -> None:
    aside = marker.with_suffix(".new")
    aside.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    aside.replace(marker)


def _parse_size(text: str) -> int:
    unit = _UNITS.get(text[-1:].upper(), 0)
    return int(float(text[:-1]) * unit) if unit else int(text)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Generate a registry storage to measure with.")
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--images", type=int, default=183)
    parser.add_argument("--size", type=_parse_size, default="2.0G", help="unique bytes of v1.0 (K, M, G)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--release", choices=RELEASES, default=RELEASES[-1], help="the newest one to generate")
    return parser.parse_args()


def main() -> None:
    given = _parse_arguments()
    parameters = Parameters(given.images, given.size, given.seed, given.release)
    begin = time.monotonic()
    try:
        corpus = ensure_corpus(given.directory, parameters)
    except ForeignDirectoryError as error:
        sys.exit(f"{error}; give another directory")
    seconds = time.monotonic() - begin
    for release in releases_until(given.release):
        sizes = [(corpus.registry / path).stat().st_size for path in corpus.blobs(release)]
        images = len(corpus.references(release))
        sys.stdout.write(f"{release}: {images} images, {len(sizes)} blobs, {sum(sizes):,} bytes\n")
    sys.stdout.write(f"ready after {seconds:.1f} s\n")


if __name__ == "__main__":
    main()
