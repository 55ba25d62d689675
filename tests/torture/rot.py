"""Rot: a file of an archive, a bundle or a site is damaged in place. `verify` finds and names it, it is never packed,
the next `sync --hash` or `deploy` mends it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from regwrap.core.model import Digest
from tests.builders import (
    add_newline,
    empty,
    fill_with_garbage,
    flip,
    remove,
    replace_by_directory,
    replace_by_fifo,
    replace_by_symlink,
    truncate,
)
from tests.torture.ground import Ground, Place, snapshot
from tests.torture.judge import Verdict, differences, left
from tests.torture.scenarios import BY_NAME, Scenario

GROUP: Final = "rot"


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _first_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 0x80]) + data[1:])


def _last_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


_DAMAGES: Final[dict[str, Callable[[Path], None]]] = {
    "bit": flip, "first-bit": _first_byte, "last-bit": _last_byte, "cut": truncate, "empty": empty, "zeros": _zeros,
    "newline": add_newline, "gone": remove, "fifo": replace_by_fifo, "directory": replace_by_directory,
    "symlink": replace_by_symlink, "garbage": fill_with_garbage,
}  # fmt: skip
_WHOLE: Final = {
    "archive": Scenario(
        "sync-hash", lambda place: [*BY_NAME["sync"].args(place), "--hash"], ("full",), ("full",), ("archive",)
    ),
    "site": Scenario("deploy-again", BY_NAME["deploy"].args, ("full", "bundle.tar"), ("full",), ("site",)),
}
_BUNDLE_DAMAGES: Final = ("bit", "cut", "zeros", "append", "swap")
_BUNDLE_PLACES: Final = 60


def cases(ground: Ground) -> Iterator[tuple[str, str]]:
    """Each file that the listed images need, with each damage; and a bundle at places all over it."""
    for place in _WHOLE:
        for path in sorted((ground.templates / "full").rglob("*")):
            name = f"{path.relative_to(ground.templates / 'full')}"
            if path.is_file() and _is_needed(ground, name):
                kind = "link" if path.name == "link" else "blob"
                for damage in _DAMAGES:
                    if not (damage == "newline" and kind == "blob"):
                        yield f"{place}/{kind}/{damage}", f"{GROUP}/{place}/{damage}/{name}"
    for damage in _BUNDLE_DAMAGES:
        for number in range(_BUNDLE_PLACES):
            yield f"bundle/{damage}", f"{GROUP}/bundle/{damage}/{number}"


def _is_needed(ground: Ground, name: str) -> bool:
    """Whether a listed image needs it: else nothing can mend it."""
    if not ground.needed:
        with ground.place(Scenario("needed", lambda _place: [], ("full", "kept.list"))) as place:
            (place.root / "kept.list").write_text((place.root / "images.list").read_text())
            assert place.run("gc", "full", "--offline", "--keep", "kept.list").code == 0
            ground.needed |= {f"{p.relative_to(place.root / 'full')}" for p in (place.root / "full").rglob("*")}
    return name in ground.needed


def run(ground: Ground, name: str) -> Verdict:
    _group, where, damage, rest = name.split("/", 3)
    if where == "bundle":
        return _bundle(ground, name, damage, int(rest))
    verdict, scenario = Verdict(name), _WHOLE[where]
    with ground.place(scenario) as place:
        root = (place.root / "full").rename(place.root / where)
        wanted = snapshot(place.root, (where,))
        target = root / rest
        right = target.read_bytes()
        _DAMAGES[damage](target)
        verdict.hit = target.is_symlink() or not target.is_file() or target.read_bytes() != right
        _found(place, where, rest, verdict)
        if where == "archive":
            _never_packed(ground, place, verdict)
        mended = place.run(*scenario.args(place))
        verdict.code, verdict.said = mended.code, mended.said[-1500:]
        if mended.code != 0:
            verdict.lost.append(f"not mended: exit {mended.code}")
        target.with_name(f"{target.name}.elsewhere").unlink(missing_ok=True)  # what the damage itself left beside
        verdict.lost += differences(wanted, snapshot(place.root, (where,)))
        verdict.left += left(replace(scenario, needs=(where, *scenario.needs), storages=(where,)), place, gone=False)
    return verdict


def _found(place: Place, where: str, name: str, verdict: Verdict) -> None:
    checked = place.run("verify", where)
    if checked.code != 4:
        verdict.lies.append(f"verify ends with {checked.code}: {checked.said[-300:]}")
    # a link's path, or the digest of the blob
    parts = {name, *(part for part in name.split("/") if len(part) == 64)}
    repository = name.partition("repositories/")[2].partition("/_")[0]
    if not any(part in checked.said for part in parts) and (not repository or repository not in checked.said):
        verdict.lies.append(f"verify does not name it: {checked.said[-300:]}")
    if "Traceback" in checked.said:
        verdict.lies.append("a traceback of verify")


def _never_packed(ground: Ground, place: Place, verdict: Verdict) -> None:
    packed = place.run("package", "images.list", "-o", "packed.tar", "--history", "./archive", "--strategy", "select")
    output = place.root / "packed.tar"
    good = f"{Digest.of((ground.templates / 'bundle.tar').read_bytes())}"
    if packed.code == 0 and f"{Digest.of(output.read_bytes())}" != good:
        verdict.lost.append("a bundle with damaged bytes was written")
    if packed.code != 0 and output.exists():
        verdict.left.append("packed.tar, though packing failed")
    if packed.code not in {0, 1, 4}:
        verdict.lies.append(f"package ends with {packed.code}: {packed.said[-300:]}")
    output.unlink(missing_ok=True)


def _bundle(ground: Ground, name: str, damage: str, number: int) -> Verdict:
    """A bundle damaged anywhere: verify finds it, deploy and push change nothing."""
    verdict = Verdict(name)
    scenario = BY_NAME["deploy"]
    ground.result_of(scenario)
    with ground.place(scenario) as place:
        path = place.root / "bundle.tar"
        data = path.read_bytes()
        spot = len(data) * number // _BUNDLE_PLACES + (number * 7919) % 512
        path.write_bytes(_damaged(data, spot, damage))
        verdict.hit = path.read_bytes() != data
        if not verdict.hit:  # two blocks of zeros were swapped
            return verdict
        before = snapshot(place.root, ("site",))
        checked = place.run("verify", "bundle.tar")
        deployed = place.run(*scenario.args(place))
        verdict.code, verdict.said = deployed.code, checked.said[-700:] + deployed.said[-700:]
        if (checked.code, deployed.code) != (4, 4):
            verdict.lies.append(f"verify ends with {checked.code}, deploy with {deployed.code}")
        if "bundle.tar" not in checked.said or "Traceback" in checked.said + deployed.said:
            verdict.lies.append("the message does not name the bundle, or is a traceback")
        verdict.lost += differences(before, snapshot(place.root, ("site",)))
        verdict.left += left(scenario, place, gone=False)
        shutil.copy2(ground.templates / "bundle.tar", path)
        again = place.run(*scenario.args(place))
        if again.code != 0:
            verdict.lost.append(f"a good bundle is not taken any more: {again.err[-300:]}")
        verdict.lost += differences(ground.result_of(scenario), snapshot(place.root, scenario.results))
    return verdict


def _damaged(data: bytes, spot: int, damage: str) -> bytes:
    spot = min(spot, len(data) - 1)
    if damage == "bit":
        return data[:spot] + bytes([data[spot] ^ 1]) + data[spot + 1 :]
    if damage == "cut":
        return data[:spot]
    if damage == "zeros":
        return data[:spot] + bytes(min(512, len(data) - spot)) + data[spot + 512 :]
    if damage == "append":
        return data + data[spot : spot + 512]
    block = spot // 512 * 512
    return data[:block] + data[block + 512 : block + 1024] + data[block : block + 512] + data[block + 1024 :]
