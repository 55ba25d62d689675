"""The work that faults are put into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.torture.ground import Place

BUNDLE: Final = "bundle.tar"
LISTED: Final = "images.list"
_VOLUMES: Final = tuple(f"v.tar.{end}" for end in ("json", "sha256", *(f"00{number}" for number in range(1, 7))))
_PIPED: Final = ("package", LISTED, "--strategy", "select", "--history", "./full", "-o", "-")


@dataclass(frozen=True)
class Scenario:
    """Work that faults are put into. `needs` are templates; `storages` show images before and after, `results` are
    compared with those of an undisturbed run, `kept` files are old or new at any time. With `dest` a registry stands on
    the storage `dest`. `adds`: files that the work may leave beside what was there.
    `drops`: tags that it deletes. `once`: it refuses to do again what is done. `resumes`: what has come of the output
    is kept for the next run. `pipe`: what stands at the other end of the pipe that `-` is, cat or regwrap."""

    name: str
    args: Callable[[Place], list[str]]
    needs: tuple[str, ...]
    storages: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    dest: bool = False
    adds: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    once: bool = False
    resumes: bool = False
    pipe: tuple[str, ...] = ()


def _sync(place: Place) -> list[str]:
    return ["sync", LISTED, "--source", place.source, "--archive", "./archive"]


def _package(*strategy: str) -> list[str]:
    return ["package", LISTED, "-o", "out/release.tar", *strategy]


# fmt: off
SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario("sync", _sync, ("archive",), ("archive",), ("archive",), adds=("failed.list",), children=("curl",)),
    Scenario(
        "sync-registry",
        lambda place: ["sync", LISTED, "--source", place.source, "--archive", place.dest],
        ("dest",), ("dest",), ("dest",), dest=True, adds=("failed.list",),
    ),
    Scenario(
        "sync-copy",
        lambda place: ["sync", LISTED, "--source", place.source, "--archive", place.dest, "--engine", "copy"],
        ("dest",), ("dest",), ("dest",), dest=True, adds=("failed.list",), children=("skopeo",),
    ),
    Scenario(
        "package-select",
        lambda _place: _package("--strategy", "select", "--history", "./full"),
        ("full", "out"), ("full",), ("out", "full"), ("out/release.tar",), children=("tar",),
    ),
    Scenario(
        "package-overlay",
        lambda place: _package(
            "--strategy", "overlay", "--history", "./archive", "--source", place.source, "--upper", "./upper"
        ),
        ("archive", "out"), ("archive",), ("out", "archive"), ("out/release.tar",),
        children=("curl", "tar", "docker-registry", "unshare", "mount"),
    ),
    Scenario(
        "package-direct",
        lambda place: _package("--strategy", "direct", "--history", "./archive", "--source", place.source),
        ("archive", "out"), ("archive",), ("out", "archive"), ("out/release.tar",), children=("curl",), resumes=True,
    ),
    Scenario(
        "deploy", lambda _place: ["deploy", BUNDLE, "site", "--replace-tags"], (BUNDLE, "site"), ("site",), ("site",)
    ),
    Scenario(
        "deploy-delta", lambda _place: ["deploy", "delta.tar", "site", "--hash", "--replace-tags"],
        ("delta.tar", "site"), ("site",), ("site",),
    ),
    Scenario(  # as through a pipe: blob after blob, as they come
        "deploy-volumes", lambda _place: ["deploy", "volumes/v.tar", "site", "--replace-tags"], ("volumes", "site"),
        ("site",), ("site",),
    ),
    Scenario(
        "deploy-pipe", lambda _place: ["deploy", "-", "site", "--replace-tags"], (BUNDLE, "site"), ("site",),
        ("site",), pipe=("cat", BUNDLE),
    ),
    Scenario(
        "deploy-delta-pipe", lambda _place: ["deploy", "-", "site", "--hash", "--replace-tags"], ("delta.tar", "site"),
        ("site",), ("site",), pipe=("cat", "delta.tar"),
    ),
    Scenario(
        "deploy-package", lambda _place: ["deploy", "-", "site", "--replace-tags"], ("full", "site"), ("site", "full"),
        ("site", "full"), pipe=_PIPED,
    ),
    Scenario(
        "package-deploy", lambda _place: [*_PIPED], ("full", "site"), ("site", "full"), ("site", "full"),
        pipe=("deploy", "-", "site", "--replace-tags"),
    ),
    Scenario(
        "direct-deploy",
        lambda place: ["package", LISTED, "--strategy", "direct", "--source", place.source, "--history", "./archive",
                       "-o", "-"],
        ("archive", "site"), ("site", "archive"), ("site", "archive"), children=("curl",),
        pipe=("deploy", "-", "site", "--replace-tags"),
    ),
    Scenario(
        "direct-volumes",
        lambda place: ["package", LISTED, "--strategy", "direct", "--source", place.source, "--history", "./archive",
                       "--volume-size", "60kB", "-o", "v.tar"],
        ("archive",), ("archive",), (*_VOLUMES, "archive"), adds=_VOLUMES, children=("curl",),
    ),
    Scenario(
        "join", lambda _place: ["join", "base.tar", "delta.tar", "-o", "out/release.tar"],
        ("base.tar", "delta.tar", "out"), results=("out",), kept=("out/release.tar",),
    ),
    Scenario(
        "package-volumes",
        lambda _place: [
            "package", LISTED, "--strategy", "select", "--history", "./full", "--volume-size", "60kB", "-o", "v.tar"
        ],
        ("full",), ("full",), (*_VOLUMES, "full"),
        adds=_VOLUMES,
    ),
    Scenario(
        "gc", lambda _place: ["gc", "full", "--offline", "--keep", "kept.list"], ("full", "kept.list"), ("full",),
        ("full",), drops=("app:v1", "keep/one:1", "multi/web:1"),
    ),
    Scenario(
        "gc-releases", lambda _place: ["gc", "series", "--offline", "--keep-release", "older"], ("series",),
        ("series",), ("series",), drops=("app:v2", "lib/tool:1", "multi/web:1"),
    ),
    Scenario(
        "rollback", lambda _place: ["rollback", "series", "newer"], ("series",), ("series",), ("series",),
    ),
    Scenario(
        "push", lambda place: ["push", BUNDLE, place.dest, "--replace-tags"], (BUNDLE, "dest"), ("dest",), ("dest",),
        dest=True,
    ),
    Scenario(
        "push-delta", lambda place: ["push", "delta.tar", place.dest, "--replace-tags"], ("delta.tar", "dest"),
        ("dest",), ("dest",), dest=True,
    ),
    Scenario(
        "import", lambda _place: ["import", "tree", "site", "--replace-tags"], ("tree", "site"), ("site",), ("site",)
    ),
    Scenario(
        "export", lambda _place: ["export", BUNDLE, "exported"], (BUNDLE,), results=("exported",), adds=("exported",),
        once=True,
    ),
    Scenario(
        "bake", lambda _place: ["bake", BUNDLE, "--to", "oci:baked:v1"], (BUNDLE,), results=("baked",),
        adds=("baked",), children=("umoci",),
    ),
    Scenario(
        "release",
        lambda place: ["release", LISTED, "--source", place.source, "--archive", "./archive", "-o", "out/release.tar"],
        ("archive", "out"), ("archive",), ("archive", "out/release.tar", "out/release.tar.sha256"),
        ("out/release.tar",), adds=("failed.list",), children=("curl", "tar"),
    ),
)
# fmt: on
BY_NAME: Final = {scenario.name: scenario for scenario in SCENARIOS}
