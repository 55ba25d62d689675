"""Company: several regwraps at the same time, and a registry whose clients pull all the while."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

import urllib3

from regwrap.core.model import Digest
from tests.builders import storage_problems
from tests.forked import Ended
from tests.torture.ground import NEW, OLD, Ground, Place, snapshot
from tests.torture.judge import Verdict, differences, left, lost, tags_of, unverified
from tests.torture.scenarios import BY_NAME, Scenario

GROUP: Final = "company"
_GC: Final = ("gc", "archive", "--offline")
_BESIDE: Final[dict[str, tuple[str, tuple[Sequence[str], ...]]]] = {
    "sync": ("sync", ()),
    "sync-registry": ("sync-registry", ()),
    "deploy": ("deploy", ()),
    "import": ("import", ()),
    "release": ("release", ()),
    "package-select": ("package-select", ()),
    "package-overlay": ("package-overlay", ()),
    "push": ("push", ()),
    "sync+gc": ("sync", (_GC,)),
    "sync+package": (
        "sync", (("package", "images.list", "-o", "one.tar", "--strategy", "overlay", "--history", "./archive",
                  "--source", "SOURCE", "--upper", "./upper"),),
    ),
    "deploy+gc": ("deploy", (("gc", "site", "--offline"),)),
}  # fmt: skip
_TOGETHER: Final = (2, 8)
_ROUNDS: Final = range(1, 13)
_MAY_BE_REFUSED: Final = {"package-select", "package-overlay", "release"}  # two write one file: one is told so


def cases(_ground: Ground) -> Iterator[tuple[str, str]]:
    """Each combination, several times, with other moments of starting; then the pulls."""
    for work in _BESIDE:
        for together in _TOGETHER:
            for number in _ROUNDS:
                yield f"{work}/{together}", f"{GROUP}/{work}/{together}/{number}"
    for work in ("deploy", "import", "sync"):
        for number in _ROUNDS:
            yield f"{work}/pulled", f"{GROUP}/{work}/pulled/{number}"


def run(ground: Ground, name: str) -> Verdict:
    _group, work, together, number = name.split("/")
    verdict = Verdict(name)
    scenario = BY_NAME[_BESIDE[work][0]]
    wanted = ground.result_of(scenario)
    with ground.place(scenario) as place:
        if together == "pulled":
            ended = _pulled(ground, scenario, place, verdict)
        else:
            ended = _together(scenario, place, _BESIDE[work][1], int(together), int(number))
        codes = sorted({item.code for item in ended}, key=lambda code: code or 0)
        verdict.code = codes[-1]
        verdict.said = "\n".join(item.said for item in ended if item.code)[-2000:]
        refused = [item for item in ended if item.code]
        allowed = ("package" in work or scenario.name in _MAY_BE_REFUSED) and len(refused) < len(ended)
        for item in refused:
            if not (allowed and item.code == 2 and "another regwrap" in item.err):
                verdict.lies.append(f"one ended with {item.code}: {item.err[-400:]}")
        verdict.lost += lost(ground, scenario, place)
        if "+gc" in work:  # it has removed what the moved tag left
            tags = {**tags_of(ground.templates / scenario.storages[0]), **{tag: f"{NEW[tag].top}" for tag in NEW}}
            verdict.lost += differences(tags, tags_of(place.root / scenario.storages[0]))
        else:
            verdict.lost += differences(wanted, snapshot(place.root, scenario.results))
        verdict.lost += unverified(scenario, place)
        verdict.left += left(replace(scenario, adds=(*scenario.adds, "one.tar")), place, gone=False)
    return verdict


def _together(
    scenario: Scenario, place: Place, beside: tuple[Sequence[str], ...], count: int, number: int
) -> list[Ended]:
    runs = []
    for turn in range(count):
        other = beside[turn % len(beside)] if beside and turn % 2 else None
        argv = [place.source if word == "SOURCE" else word for word in other or scenario.args(place)]
        runs.append(place.start(*argv))
        time.sleep(0.004 * ((number * (turn + 3)) % 11))
    return [item.ended() for item in runs]


def _pulled(ground: Ground, scenario: Scenario, place: Place, verdict: Verdict) -> list[Ended]:
    """A registry serves the storage meanwhile, and its clients see every image whole, old or new, or not yet."""
    root, over, seen = place.root / scenario.storages[0], threading.Event(), list[str]()
    with ExitStack() as stack:
        host = stack.enter_context(ground.registry(root)).host
        client = urllib3.PoolManager(maxsize=4, block=True)
        threads = [
            threading.Thread(target=_pull, args=(client, host, names, over, seen))
            for names in (sorted(OLD), sorted(NEW), sorted({*OLD, *NEW}, reverse=True))
        ]
        for thread in threads:
            thread.start()
        ended = [place.run(*scenario.args(place)) for _ in range(2)]
        over.set()
        for thread in threads:
            thread.join()
        client.clear()
    verdict.hit = len(seen) > 10
    verdict.lost += sorted({text for text in seen if text})[:5]
    verdict.lost += sorted(storage_problems(root))[:5]
    return ended


def _pull(client: urllib3.PoolManager, host: str, names: list[str], over: threading.Event, seen: list[str]) -> None:
    while not over.is_set():
        for name in names:
            repository, _, tag = name.rpartition(":")
            seen.append(_pulled_image(client, f"http://{host}/v2/{repository}", tag, name))


def _pulled_image(client: urllib3.PoolManager, base: str, tag: str, name: str) -> str:
    """What is wrong with what the registry gives; empty for a whole image, or none where none was before."""
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json,"
              "application/vnd.docker.distribution.manifest.v2+json,"
              "application/vnd.docker.distribution.manifest.list.v2+json"}  # fmt: skip
    answer = client.request("GET", f"{base}/manifests/{tag}", headers=accept)
    if answer.status == 404 and name not in OLD:
        return ""
    images = {f"{image[name].top}": image[name] for image in (OLD, NEW) if name in image}
    image = images.get(f"{Digest.of(answer.data)}")
    if answer.status != 200 or image is None:
        return f"{name}: a client got {answer.status} {answer.data[:200]!r}"
    for raw in image.manifests[:-1]:
        child = client.request("GET", f"{base}/manifests/{Digest.of(raw)}", headers=accept)
        if child.data != raw:
            return f"{name}: a client got {child.status} for a child of its index"
    for blob in image.blobs:
        if client.request("GET", f"{base}/blobs/{Digest.of(blob)}").data != blob:
            return f"{name}: a client got a blob wrong"
    return ""
