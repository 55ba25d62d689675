"""Registries that go wrong, between every pair: a proxy that fails on demand stands before the source, or before the
destination."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from typing import Final

from tests.faultserver import Fault, faulty_proxy
from tests.torture.ground import Ground
from tests.torture.judge import Expected, Verdict, judge
from tests.torture.scenarios import BY_NAME

GROUP: Final = "network"
_ENDS: Final = (
    ("sync", "source"), ("sync-registry", "source"), ("sync-registry", "dest"), ("push", "dest"),
    ("package-overlay", "source"), ("package-direct", "source"), ("release", "source"),
)  # fmt: skip
_PATTERNS: Final = {
    "ping": r"GET /v2/$",
    "any": r"/v2/.",
    "manifest": r"GET .*/manifests/",
    "look": r"HEAD .*/manifests/",
    "blob": r"GET .*/blobs/",
    "upload": r"(POST|PATCH|PUT) .*/blobs/",
    "put": r"PUT .*/manifests/",
}
_AT: Final = {"source": ("ping", "any", "manifest", "look", "blob"), "dest": ("ping", "any", "look", "upload", "put")}
_FAULTS: Final[dict[str, tuple[Fault, str]]] = {
    **{f"{code}": (Fault("refuse", "", status=code), rf"{code}|unauthorized|authentication|denied|not there|unknown"
                   r"|no registry|has no|absent|not found|no such")
       for code in (401, 403, 404, 405, 408, 413, 416, 500, 502, 503, 504)},
    "429": (Fault("refuse", "", status=429), r"429|toomanyrequests|too many requests"),
    "429-after-0": (Fault("refuse", "", status=429, headers=(("Retry-After", "0"),)), r"429|too ?many ?requests"),
    "429-after-1": (Fault("refuse", "", status=429, headers=(("Retry-After", "1"),)), r"429|too ?many ?requests"),
    "429-after-day": (Fault("refuse", "", status=429, headers=(("Retry-After", "86400"),)), r"429|too ?many ?requests"),
    "429-after-junk": (Fault("refuse", "", status=429, headers=(("Retry-After", "soon"),)), r"429|too ?many ?requests"),
    "html": (Fault("html", ""), r"web page|login page|html|invalid character '<'|not a manifest|unexpected|digest"
             r"|arrive|no registry|damaged"),
    "reset": (Fault("reset", ""), r"reset|EOF|closed|aborted|broken pipe|no answer"),
    "silent": (Fault("silent", ""), r"no progress|timed out|timeout|no answer|not done after"),
    "stall": (Fault("stall", "", at=20), r"no progress|timed out|timeout|no answer|not done after|EOF|incomplete"),
    "slow": (Fault("slow", "", seconds=0.3), ""),
    "cut-0": (Fault("cut", "", at=0), r"EOF|cut|incomplete|broken|closed|damaged|short|arrive|digest|unexpected"
              r"|absent"),
    "cut-100": (Fault("cut", "", at=100), r"EOF|cut|incomplete|broken|closed|damaged|short|arrive|digest|unexpected"),
    "flip": (Fault("flip", ""), r"digest|sha256|damaged|arrive|invalid|not a manifest|unexpected|parse|JSON|format"
             r"|absent"),
    "wrong-digest": (Fault("wrong-digest", ""), r"digest|sha256"),
    "redirect": (Fault("redirect", ""), r"redirect|307"),
    "down": (Fault("down", ""), r"is down|refused|reset"),
}  # fmt: skip
_WAITING: Final = {"silent", "stall"}
# asked by skopeo alone, which waits a minute for a registry that says 429 for good: too long here
_OF_SKOPEO: Final = {"ping", "any", "blob", "upload", "put", "manifest"}
_TIMES: Final = {"once": (1, 1), "twice": (1, 2), "third": (3, 1), "later": (5, 10**9), "always": (1, 10**9)}


def cases(_ground: Ground) -> Iterator[tuple[str, str]]:
    """Every fault at every request of every end."""
    for scenario, end in _ENDS:
        for pattern, fault, times in product(_AT[end], _FAULTS, _TIMES):
            if not (
                fault.startswith("429")
                and scenario != "push"
                and pattern in _OF_SKOPEO
                and times in {"twice", "later", "always"}
            ):
                yield f"{scenario}/{end}/{fault}", f"{GROUP}/{scenario}/{end}/{pattern}/{fault}/{times}"


def run(ground: Ground, name: str) -> Verdict:
    _group, scenario_name, end, pattern, kind, times = name.split("/")
    scenario, (template, cause) = BY_NAME[scenario_name], _FAULTS[kind]
    first, count = _TIMES[times]
    fault = Fault(
        template.kind, _PATTERNS[pattern], times=count, at=template.at, status=template.status,
        seconds=template.seconds, first=first, headers=template.headers,
    )  # fmt: skip
    ground.result_of(scenario)
    with ground.place(scenario) as place, ExitStack() as stack:
        right = (place.source, place.dest)
        proxy = stack.enter_context(faulty_proxy(place.source if end == "source" else place.dest, (fault,)))
        if end == "source":
            place.source = proxy.host
        else:
            place.dest = proxy.host
        place.hasty = kind in _WAITING
        place.configure()
        ended = place.start(*scenario.args(place)).ended()
        hits = proxy.faults[0][1][0]

        def mend() -> None:
            place.source, place.dest = right
            place.hasty = False
            place.configure()

        verdict = Verdict(name, hit=hits >= first)
        told = re.compile(cause, re.IGNORECASE) if cause else None
        judge(ground, scenario, place, ended, verdict, Expected(cause=told.pattern if told else "", mend=mend))
        return verdict
