"""Which images a corpus has and which layers they share. Pure: labels and sizes, no bytes.

A few bases, some runtimes on them, many small application layers on those: what a product of a
hundred services looks like. Each release after v1.0 rebuilds the application layers of another tenth of the images.
"""

import functools
from dataclasses import dataclass
from typing import Final

from content import Kind, draw

RELEASES: Final = tuple(f"v1.{number}" for number in range(11))
_BASES: Final = 5
_RUNTIMES: Final = 15
# Multi-arch images stand on the first runtimes only, so few bases have to exist twice.
_PORTED_RUNTIMES: Final = 3
_GROUPS: Final = ("team", "platform", "platform/data", "edge", "shop/web")
_SMALLEST: Final = 64


@dataclass(frozen=True, slots=True)
class Parameters:
    """What decides every byte of a corpus."""

    images: int
    size: int
    seed: int
    release: str


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """One image: the labels of its layers for each architecture."""

    repository: str
    tag: str
    kind: Kind
    layers: dict[str, tuple[str, ...]]

    @property
    def reference(self) -> str:
        return f"{self.repository}:{self.tag}"


def plan_release(parameters: Parameters, release: str) -> tuple[ImageSpec, ...]:
    """The images that the list of a release names; each keeps nine tenths of the release before."""
    tags = dict.fromkeys(range(1, parameters.images + 1), RELEASES[0])
    for newer in releases_until(release)[1:]:
        tags |= dict.fromkeys(_tenth(parameters, f"changed {newer}"), newer)
    return tuple(_image(parameters, number, tag) for number, tag in tags.items())


def releases_until(release: str) -> tuple[str, ...]:
    return RELEASES[: RELEASES.index(release) + 1]


def layer_sizes(parameters: Parameters) -> dict[str, int]:
    """Bytes of every layer by label, so that those of v1.0 sum up to the wanted size."""
    first = _labels(parameters, RELEASES[0])
    labels = first.union(*(_labels(parameters, release) for release in releases_until(parameters.release)))
    weights = {label: _weight(parameters.seed, label) for label in labels}
    unit = parameters.size / sum(weights[label] for label in first)
    return {label: max(_SMALLEST, int(weights[label] * unit)) for label in sorted(labels)}


def _labels(parameters: Parameters, release: str) -> set[str]:
    images = plan_release(parameters, release)
    return {label for image in images for labels in image.layers.values() for label in labels}


def _image(parameters: Parameters, number: int, tag: str) -> ImageSpec:
    seed = parameters.seed
    ported = number in _tenth(parameters, "multi-arch")
    runtime = int(draw(seed, "runtime", number) * (_PORTED_RUNTIMES if ported else _RUNTIMES))
    kind: Kind = "oci" if ported or draw(seed, "kind", number) < 1 / 3 else "docker"
    architectures = ("amd64", "arm64") if ported else ("amd64",)
    # The number is in the last component: unscoped `skopeo sync` keeps only that one.
    repository = f"{_GROUPS[number % len(_GROUPS)]}/app-{number:03}"
    layers = {name: _stack(seed, number, tag, runtime, name) for name in architectures}
    return ImageSpec(repository, tag, kind, layers)


def _stack(seed: int, number: int, tag: str, runtime: int, architecture: str) -> tuple[str, ...]:
    applications = 2 + int(draw(seed, "depth", number) * 5)
    return (
        f"base-{runtime % _BASES}-{architecture}",
        *(f"runtime-{runtime}-{part}-{architecture}" for part in range(2)),
        *(f"app-{number:03}-{tag}-{part}-{architecture}" for part in range(applications)),
    )


def _weight(seed: int, label: str) -> float:
    """About megabytes when 183 images make 2 GB."""
    share = draw(seed, "weight", label)
    match label.partition("-")[0]:
        case "base":
            return 20 + 60 * share
        case "runtime":
            return 2 + 26 * share
        case _:
            return 0.01 + 7 * share**4


@functools.cache
def _tenth(parameters: Parameters, what: str) -> frozenset[int]:
    numbers = range(1, parameters.images + 1)
    ranked = sorted(numbers, key=lambda number: draw(parameters.seed, what, number))
    return frozenset(ranked[: max(1, parameters.images // 10)])
