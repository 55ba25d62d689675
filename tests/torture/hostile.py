"""Hostile input: bundles, lists, configurations, storages and trees that nobody makes by mistake, by name, and random
ones by number. Each is refused or taken rightly: no traceback, nothing written beside the target, little memory."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Final

from tests.builders import put, storage_problems
from tests.forked import Ended
from tests.torture.deltas import DELTAS
from tests.torture.ground import SECRET, Ground, Place, snapshot
from tests.torture.inputs import NAMED, json_of, with_json
from tests.torture.judge import Verdict, left
from tests.torture.scenarios import Scenario

GROUP: Final = "hostile"
_MEMORY: Final = 300 * 1000 * 1000
_RANDOM: Final = range(400)
_NAMED: Final = {**NAMED, "pipe": NAMED["bundle"], "delta": DELTAS}


def cases(_ground: Ground) -> Iterator[tuple[str, str]]:
    for kind, named in _NAMED.items():
        for name in named:
            yield f"{kind}", f"{GROUP}/{kind}/{name}"
    for kind in ("bundle", "pipe", "list", "config", "index"):
        for number in _RANDOM:
            yield f"{kind} random", f"{GROUP}/{kind}/random-{number}"


def run(ground: Ground, name: str) -> Verdict:
    _group, kind, what = name.split("/", 2)
    verdict = Verdict(name)
    needs = ("bundle.tar", "delta.tar", "base.tar", "full", "site", "tree", "archive")
    scenario = Scenario("hostile", lambda _place: [], needs, pipe=("cat", _PIPED.get(kind, "")))
    with ground.place(scenario) as place:
        if what.startswith("random-"):
            _RANDOMS[kind](ground, place, random.Random(int(what.removeprefix("random-"))))
        else:
            _NAMED[kind][what](ground, place)
        outside, targets = _outside(place), _TARGETS[kind]
        before = place.run("verify", "site") if kind == "delta" else None  # it may be the site that is damaged
        for argv in _COMMANDS[kind]:
            ended = place.start(*(place.source if word == "SOURCE" else word for word in argv)).ended()
            _judge(verdict, argv[0], ended, place, refused=kind == "delta")
        after = _outside(place)
        verdict.lost += [f"{path} was written to" for path in outside if outside[path] != after.get(path)]
        verdict.lost += [f"{path} was made" for path in after.keys() - outside.keys()]
        checked = place.run("verify", "site")
        if (before is not None and checked.said != before.said) or (before is None and checked.code != 0):
            verdict.lost.append(f"the site is not whole any more: {checked.said[-300:]}")
        known = tuple(path.name for path in place.root.iterdir() if path.name in targets)
        verdict.left += left(Scenario("", scenario.args, (*scenario.needs, *known, *_INPUTS)), place, gone=False)
    return verdict


def _judge(verdict: Verdict, command: str, ended: Ended, place: Place, *, refused: bool) -> None:
    """`refused`: nothing of it may be taken."""
    verdict.code, verdict.said = ended.code, ended.said[-1500:]
    if "Traceback" in ended.said or ended.code not in {0, 1, 2, 3, 4}:
        verdict.lies.append(f"{command} ends with {ended.code}: {ended.said[-300:]}")
    if ended.code and not ended.said.strip():
        verdict.lies.append(f"{command} says nothing")
    if len(ended.said) > max(200_000, 10 * _size(place)) or SECRET in ended.said:
        verdict.lies.append(f"{command} says {len(ended.said)} characters, or a secret")
    if ended.memory > _MEMORY:
        verdict.lost.append(f"{command} took {ended.memory:,} bytes of memory")
    if ended.code == 0 and command == "deploy":
        verdict.lost += ["it was taken"] if refused else sorted(storage_problems(place.root / "site"))


_PIPED: Final = {"pipe": "bundle.tar", "delta": "delta.tar"}
_INPUTS: Final = ("hostile.list", "hostile.yaml", "evil", "canary")


def _size(place: Place) -> int:
    """What was put in: a list of many lines may have a plan of many lines."""
    return sum((place.root / name).stat().st_size for name in _INPUTS if (place.root / name).is_file())


def _outside(place: Place) -> dict[str, str]:
    """All but where the commands may write."""
    names = tuple(p.name for p in place.root.iterdir() if p.name not in {"site", "scratch", "home", "made.tar"})
    return snapshot(place.root, names)


_COMMANDS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "bundle": (("verify", "bundle.tar"), ("inspect", "bundle.tar"), ("deploy", "bundle.tar", "site", "--replace-tags")),
    "pipe": (("verify", "-"), ("deploy", "-", "site", "--replace-tags")),
    "delta": (
        ("verify", "-", "--base", "site"),
        ("verify", "delta.tar", "--base", "base.tar"),
        ("inspect", "delta.tar"),
        ("join", "base.tar", "delta.tar", "-o", "made.tar"),
        ("deploy", "-", "site", "--replace-tags", "--hash"),
        ("deploy", "delta.tar", "site", "--replace-tags", "--hash"),
    ),
    "list": (("sync", "hostile.list", "--source", "SOURCE", "--archive", "./archive", "--dry-run"),),
    "config": (("sync", "images.list", "--config", "hostile.yaml", "--source", "SOURCE", "--dry-run"),),
    "storage": (
        ("verify", "full"),
        ("package", "images.list", "-o", "made.tar", "--history", "./full", "--strategy", "select"),
        ("gc", "full", "--offline", "--dry-run"),
    ),
    "index": (("import", "tree", "site", "--replace-tags"),),
}
_TARGETS: Final = {
    "bundle": ("site",),
    "pipe": ("site",),
    "delta": ("site", "made.tar"),
    "list": (),
    "config": (),
    "storage": ("made.tar",),
    "index": ("site",),
}


# --- random ones that keep the structure


def _mutated(value: object, dice: random.Random) -> object:
    """JSON with something changed somewhere in it."""
    odd = [None, True, -1, 0, 10**25, 1.5, "", "x" * 5000, [], {}, "../x", "\0", "sha256:" + "0" * 64, value]
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(sorted(value))
        action = dice.random()
        if action < 0.1:
            del value[key]
        elif action < 0.2:
            value[f"{key}x"] = value[key]
        else:
            value[key] = _mutated(value[key], dice)
        return value
    if isinstance(value, list) and value and dice.random() < 0.85:
        position = dice.randrange(len(value))
        action = dice.random()
        if action < 0.1:
            del value[position]
        elif action < 0.2:
            value.append(copy.deepcopy(value[position]))
        elif action < 0.3:
            dice.shuffle(value)
        else:
            value[position] = _mutated(value[position], dice)
        return value
    return dice.choice(odd)


def _random_bundle(ground: Ground, place: Place, dice: random.Random) -> None:
    document = json.loads(json_of(ground))
    for _ in range(dice.randrange(1, 4)):
        document = _mutated(document, dice)
    raw = json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
    with_json(lambda _raw: raw)(ground, place)


def _random_list(_ground: Ground, place: Place, dice: random.Random) -> None:
    words = [
        "app",
        "lib/tool",
        ":",
        "v1",
        "@",
        "sha256:",
        "a" * 64,
        " => ",
        "platform=",
        "linux/amd64",
        ",",
        "\n",
        " ",
        "#",
        "127.0.0.1:1/",
        "..",
        "/",
        "*",
        "\t",
        "\r\n",
        "\u202e",
        "\0",
        "é",
        "http://",
        "~",
        "-",
        "_",
        "=",
        "&a",
        "*a",
        "{",
        "[",
    ]
    text = "".join(dice.choice(words) for _ in range(dice.randrange(1, 60)))
    put(place.root / "hostile.list", text.encode())


def _random_config(_ground: Ground, place: Place, dice: random.Random) -> None:
    document: object = {
        "registries": {"a": {"url": "http://127.0.0.1:1", "authfile": "auth.json"}},
        "archive": "./archive",
        "jobs": 3,
        "rewrite": {"prefix": "m/"},
        "images": [{"match": "app:*", "newest": 2, "semver": ">=1"}],
        "retry": {"attempts": 2, "wait": 0.1, "outage": 0},
        "timeouts": {"stall": 2, "lock": 3},
    }
    for _ in range(dice.randrange(1, 5)):
        document = _mutated(document, dice)
    put(place.root / "hostile.yaml", json.dumps(document).encode())


def _random_tree(_ground: Ground, place: Place, dice: random.Random) -> None:
    paths = sorted((place.root / "tree").rglob("manifest.json"))
    path = dice.choice(paths)
    document = json.loads(path.read_bytes())
    for _ in range(dice.randrange(1, 4)):
        document = _mutated(document, dice)
    path.write_bytes(json.dumps(document).encode())


_RANDOMS: Final = {
    "bundle": _random_bundle,
    "pipe": _random_bundle,
    "list": _random_list,
    "config": _random_config,
    "index": _random_tree,
}
