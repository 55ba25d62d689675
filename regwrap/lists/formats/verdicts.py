"""What becomes of the keys that several formats have."""

from __future__ import annotations

from typing import Final

from regwrap.lists.formats.values import (
    Rule,
    Verdict,
)

READ: Final = Rule(Verdict.READ)
CREDENTIALS: Final = Rule(Verdict.NOTED, "credentials are read from an authfile (skopeo login)")
TLS: Final = Rule(Verdict.NOTED, "registries: in the configuration says how a registry is reached")
OWN: Final = Rule(Verdict.NOTED, "regwrap runs once when it is called, in its own way")
PATTERN: Final = Rule(
    Verdict.REFUSED,
    "chooses tags by a pattern, which may mean others tomorrow: list the tags themselves (skopeo list-tags has them),"
    " or put the pattern under images: in the configuration, for regwrap lock",
)
EXTRAS: Final = Rule(
    Verdict.REFUSED, "asks for images that are not listed (signatures, SBOMs): list each, or take the key out"
)
SIGNATURES: Final = Rule(
    Verdict.REFUSED,
    "lets only signed images in, which is not checked here: check them (cosign), then take the key out",
)
ELSEWHERE: Final = Rule(
    Verdict.REFUSED, "changes where images come from: write their names as they are there, and take the key out"
)
