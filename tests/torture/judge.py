"""One judge for all cases: what was there is served still, the message names the cause, nothing is left, and the same
again without the fault gives, byte for byte, what an undisturbed run gives."""

import base64
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from regwrap.core.model import Digest
from regwrap.storage import layout
from tests.builders import storage_problems
from tests.forked import Ended
from tests.torture.ground import NEW, OLD, SECRET, Ground, Place, snapshot
from tests.torture.programs import is_locked, mounts_in, settled
from tests.torture.scenarios import Scenario

SHM: Final = Path("/dev/shm")
_ENCODED: Final = base64.b64encode(f"robot:{SECRET}".encode())
CAUSES: Final = {
    "ENOSPC": r"no space left|not enough (space|inodes)",
    "EDQUOT": r"quota",
    "EIO": r"input/output error",
    "EACCES": r"permission denied",
    "EMFILE": r"too many open files",
    "EAGAIN": r"resource temporarily unavailable",
    "ENOMEM": r"cannot allocate memory",
    "EROFS": r"read-only file system",
}


@dataclass
class Verdict:
    """`lost`: something that was promised about data is not so. `lies`: a message, an exit code. `left`: what is left
    behind. `theirs`: harm that a registry did to itself when its own disk was full. A case whose fault did not come
    about (`hit` is false) proves nothing and is counted apart."""

    case: str
    hit: bool = True
    lost: list[str] = field(default_factory=list)
    lies: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    theirs: list[str] = field(default_factory=list)
    seconds: float = 0.0
    code: int | None = None
    said: str = ""

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.lies or self.left)


_NAMELESS: Final = re.compile(
    "^regwrap: (Input/output error|Permission denied|No space left on device|Disk quota exceeded)$", re.MULTILINE
)


@dataclass(frozen=True)
class Expected:
    """What a fault allows. `cause`: what the message has to say where the run failed. `killed`: regwrap itself was,
    and could say and tidy nothing. `untidy`: what was injected is that something can't be removed. `foreign`: the
    destination's own registry is on the disk that failed, and keeps no more than old tags. `mute`: the message itself
    could not be written. `nameless`: it may leave out which file. `mend` ends the fault."""

    cause: str = ""
    killed: bool = False
    untidy: bool = False
    foreign: bool = False
    mute: bool = False
    nameless: bool = False
    mend: Callable[[], object] = lambda: None


def judge(ground: Ground, scenario: Scenario, place: Place, ended: Ended, verdict: Verdict, expected: Expected) -> None:
    """Judge a run that was disturbed; then run it again and judge that."""
    verdict.code, verdict.said = ended.code, ended.said[-2000:]
    wanted = ground.result_of(scenario)
    verdict.lies += list(_lies(ended, expected))
    verdict.lost += [f"after the fault: {text}" for text in lost(ground, scenario, place, expected)]
    if ended.code == 0 and snapshot(place.root, scenario.results) != wanted:
        verdict.lies.append("exit code 0, and the result is another one than that of an undisturbed run")
    verdict.left += list(left(scenario, place, gone=expected.killed or expected.untidy))
    verdict.lies += [f"a secret is in {path}" for path in leaks(place.root)]
    if scenario.once and snapshot(place.root, scenario.results) == wanted:
        return
    expected.mend()
    again = place.run(*scenario.args(place))
    if again.code != 0 and expected.foreign and re.search(r"500", again.said):
        verdict.theirs.append("it answers 500 ever after to what it left half")
        verdict.lost += [f"after the run again: {text}" for text in lost(ground, scenario, place, expected)]
        return
    if again.code != 0:
        verdict.lost.append(f"run again it ends with {again.code}: {again.err[-600:]}")
        return
    verdict.lost += [f"run again: {text}" for text in differences(wanted, snapshot(place.root, scenario.results))]
    verdict.lost += list(unverified(scenario, place))
    verdict.left += [f"after the run again: {text}" for text in left(scenario, place, gone=False, done=True)]


def _lies(ended: Ended, expected: Expected) -> Iterator[str]:
    if SECRET in ended.said:
        yield "a secret is in the output"
    if "Traceback" in ended.said + ended.other or ended.code == 70:
        yield "a traceback"
    if ended.code is None:
        yield "it hangs"
    elif ended.code < 0 and not expected.killed:
        yield f"terminated by signal {-ended.code}"
    elif ended.code > 0 and expected.mute:
        return
    elif ended.code > 0 and expected.cause and not re.search(expected.cause, _blaming(ended), re.IGNORECASE):
        yield f"the message does not say /{expected.cause}/"
    elif ended.code > 0 and not ended.err.strip():
        yield "no message"
    elif _NAMELESS.search(ended.err) and not expected.nameless:
        yield "the message names no file"


def _blaming(ended: Ended) -> str:
    """What it said; where that is to see what the other end of the pipe said, that too."""
    return ended.said + ended.other if re.search("see what (the sender|it) said", ended.err) else ended.said


def lost(ground: Ground, scenario: Scenario, place: Place, expected: Expected | None = None) -> Iterator[str]:
    """What was there before and is neither as it was nor as it shall be."""
    if expected and expected.foreign:
        now = tags_of(place.root / "dest")
        yield from (f"{tag} is {now.get(tag)!r}" for tag in OLD if now.get(tag) not in _versions(tag))
        return
    for name in scenario.storages:
        yield from (f"{name}: {text}" for text in sorted(storage_problems(place.root / name)))
        yield from (f"{name}: {text}" for text in _tags_lost(ground, scenario, place, name))
    for name in scenario.kept:
        now, new = snapshot(place.root, (name,)), ground.result_of(scenario)
        if now not in (snapshot(ground.templates, (name,)), {name: new.get(name)}):
            yield f"{name} is neither the old nor the new one"


def _tags_lost(ground: Ground, scenario: Scenario, place: Place, name: str) -> Iterator[str]:
    old, new = tags_of(ground.templates / name), {**OLD, **NEW}
    now = tags_of(place.root / name)
    for tag, digest in old.items():
        allowed = {digest} if scenario.drops else {digest, f"{new[tag].top}"}
        if tag not in now and tag not in scenario.drops:
            yield f"{tag} is gone"
        elif tag in now and now[tag] not in allowed:
            yield f"{tag} is {now[tag]!r}"
    yield from (f"{tag} is {now[tag]!r}" for tag in now.keys() - old.keys() if now[tag] != f"{new[tag].top}")


def _versions(tag: str) -> set[str]:
    return {f"{images[tag].top}" for images in (OLD, NEW) if tag in images}


def tags_of(root: Path) -> dict[str, str]:
    """Each tag that a registry lists, with what its link says."""
    found = {}
    repositories = root / layout.REPOSITORIES
    for tag in sorted(repositories.rglob("_manifests/tags/*")):
        link = tag / "current/link"
        repository = f"{tag.parents[2].relative_to(repositories)}"
        found[f"{repository}:{tag.name}"] = link.read_text() if link.is_file() else ""
    return found


def left(scenario: Scenario, place: Place, *, gone: bool, done: bool = False) -> Iterator[str]:
    """Processes, mounts, locks and files that are left. `gone`: files may be; the next run has to remove them. `done`:
    nothing failed, and no whole blobs wait for a next run."""
    yield from (f"process {line}" for line in settled(place.root, place.spared))
    yield from (f"mount {line}" for line in mounts_in(place.root))
    for name in ("archive", "full", "series", "site"):
        if is_locked(place.root / name / ".regwrap/lock"):
            yield f"{name} is locked"
    if gone:
        return
    known = {"home", "scratch", "images.list", "regwrap.yaml", "auth.json", "upper", "lost+found"}
    known |= {*scenario.needs, *scenario.adds}
    yield from (f"file {path.name}" for path in place.root.iterdir() if path.name not in known)
    yield from (f"file in TMPDIR: {path.name}" for path in (place.root / "scratch").iterdir())
    yield from (f"file in /dev/shm: {path.name}" for path in SHM.glob("regwrap-*") if place.private_memory)
    for name in ("out", "upper", "exported", "baked"):
        expected = {"release.tar", "release.tar.sha256", "release.json"} if name == "out" else None
        for path in (place.root / name).glob("*") if name in {"out", "upper"} else ():
            is_kept = scenario.resumes and not done and path.suffix == ".part"
            if name == "upper" or (path.name not in (expected or ()) and not is_kept):
                yield f"file {name}/{path.name}"
    for name in scenario.storages:
        for path in (place.root / name / ".regwrap").glob("*"):
            if path.name not in {"lock", "archive", "releases", *(() if done else ("sync",))}:
                yield f"file {name}/.regwrap/{path.name}"


def leaks(root: Path) -> Iterator[str]:
    """Files that regwrap wrote a secret into. A registry there may still be removing an upload that was cut off."""
    for directory, _names, files in os.walk(root):
        for path in (Path(directory, name) for name in files if name != "auth.json"):
            with suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 16:
                    data = path.read_bytes()
                    if SECRET.encode() in data or _ENCODED in data:
                        yield f"{path.relative_to(root)}"


def differences(wanted: dict[str, str], found: dict[str, str]) -> Iterator[str]:
    names = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    for name in names[:5]:
        yield f"{name} is {found.get(name, 'absent')}, undisturbed {wanted.get(name, 'absent')}"
    if len(names) > 5:
        yield f"and {len(names) - 5} more differ"


def unverified(scenario: Scenario, place: Place) -> Iterator[str]:
    targets = [*scenario.storages, *(name for name in scenario.kept if name.endswith(".tar"))]
    for name in targets:
        checked = place.run("verify", name, "--quiet")
        if checked.code != 0:
            yield f"verify {name}: {checked.said[-400:]}"


def layout_problems(directory: Path) -> Iterator[str]:
    """An OCI layout is whole: every manifest and blob that its index names is there with its bytes."""
    todo = [entry["digest"] for entry in json.loads((directory / "index.json").read_bytes())["manifests"]]
    while todo:
        digest = todo.pop()
        path = directory / "blobs/sha256" / digest.removeprefix("sha256:")
        if not path.is_file() or f"{Digest.of(path.read_bytes())}" != digest:
            yield f"{digest} is absent or damaged"
            continue
        if path.stat().st_size < 100_000 and path.read_bytes().startswith(b"{"):
            document = json.loads(path.read_bytes())
            parts = [document.get("config"), *document.get("layers", []), *document.get("manifests", [])]
            todo += [part["digest"] for part in parts if isinstance(part, dict) and "digest" in part]
