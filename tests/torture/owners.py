"""Hostile directory: root works in a storage that another user owns, and he swaps names in it at random meanwhile."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from regwrap.storage import layout
from tests.torture.ground import Ground
from tests.torture.judge import Verdict, left
from tests.torture.scenarios import BY_NAME

GROUP: Final = "directory"
_UID: Final = 65534
_STORAGES: Final = {
    "sync": "archive",
    "deploy": "site",
    "import": "site",
    "gc": "full",
    "rollback": "series",
    "package-select": "full",
    "release": "archive",
}
_PLACES: Final = (
    "docker", layout.V2, layout.REPOSITORIES, f"{layout.V2}/blobs", layout.BLOBS, f"{layout.REPOSITORIES}/app",
    f"{layout.REPOSITORIES}/app/_manifests", f"{layout.REPOSITORIES}/app/_manifests/tags", ".regwrap",
    f"{layout.REPOSITORIES}/app/_layers/sha256", ".regwrap/deploy", ".regwrap/sync", ".regwrap/import", ".regwrap/gc",
    ".regwrap/sync/blobs/sha256", ".regwrap/deploy/links", ".regwrap/releases",
)  # fmt: skip
_SEEDS: Final = range(1, 41)
# runs as the owner: puts a link to what is not his in a place, and the directory back, as fast as it can
_SWAPPER: Final = """
import os, random, sys
root, outside, dice = sys.argv[1], sys.argv[2], random.Random(int(sys.argv[3]))
places = sys.argv[4:]
print("begun", flush=True)
while True:
    place = f"{root}/{dice.choice(places)}"
    away = f"{place}.away{dice.randrange(10**9)}"
    try:
        os.rename(place, away)
        os.symlink(outside, place)
        for _ in range(dice.randrange(2000)):
            pass
        os.unlink(place)
        os.rename(away, place)
    except OSError:
        pass
"""


def cases(_ground: Ground) -> Iterator[tuple[str, str]]:
    """Each work with other dice. Only root can be tricked."""
    if os.geteuid() == 0:
        for work in _STORAGES:
            for seed in _SEEDS:
                yield work, f"{GROUP}/{work}/{seed}"


def run(ground: Ground, name: str) -> Verdict:
    _group, work, seed = name.split("/")
    scenario, verdict = BY_NAME[work], Verdict(name)
    ground.result_of(scenario)
    with ground.place(scenario) as place:
        root, outside = place.root / _STORAGES[work], place.root / "outside"
        _give(root)
        _furnish(outside)
        before = _states(outside)
        with _swapped(root, outside, seed):
            ended = place.run(*scenario.args(place))
        verdict.code, verdict.said = ended.code, ended.said[-2000:]
        if _states(outside) != before:
            verdict.lost.append("what is outside of the storage is another one now")
        verdict.lost += [f"a file of the storage belongs to root: {path}" for path in _of_root(root)][:3]
        if ended.code is None or ended.code < 0 or ended.code == 70 or "Traceback" in ended.said:
            verdict.lies.append(f"it ended with {ended.code}")
        verdict.left += [text for text in left(scenario, place, gone=True) if not text.startswith("file ")]
        _settle(root)
    return verdict


def _give(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        os.chown(path, _UID, _UID, follow_symlinks=False)


def _furnish(outside: Path) -> None:
    """Root's own, with every name that a step may come by."""
    for name in ("deploy", "gc", "import", "sync", "links", "sha256", "tags", "app", "registry/v2", "v2", "releases"):
        (outside / name).mkdir(parents=True, exist_ok=True)
        (outside / name / "precious").write_text("precious")
    for name in ("lock", "archive", "data", "link"):
        (outside / name).write_text("precious")
        (outside / name).chmod(0o600)


def _states(top: Path) -> dict[str, tuple[int, int, int, bytes]]:
    found = {}
    for path in (top, *top.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[f"{path.relative_to(top)}"] = (status.st_mode, status.st_uid, status.st_gid, data)
    return found


def _of_root(root: Path) -> Iterator[str]:
    for path in root.rglob("*"):
        if path.lstat().st_uid == 0:
            yield f"{path.relative_to(root)}"


@contextmanager
def _swapped(root: Path, outside: Path, seed: str) -> Iterator[None]:
    command = ["setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups", sys.executable, "-I", "-c", _SWAPPER]
    process = subprocess.Popen([*command, f"{root}", f"{outside}", seed, *_PLACES], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


def _settle(root: Path) -> None:
    """What was away when he was ended; a case is removed as a whole."""
    for path in root.rglob("*"):
        if path.is_symlink():
            path.unlink()
