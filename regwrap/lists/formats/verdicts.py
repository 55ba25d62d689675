"""What becomes of the keys that several formats have."""

from __future__ import annotations

from typing import Final

from regwrap.lists.formats.values import (
    Rule,
    Verdict,
)

READ: Final = Rule(Verdict.READ)
CREDENTIALS: Final = Rule(Verdict.NOTED, "credentials are read from an authfile (skopeo login)")
TLS: Final = Rule(Verdict.NOTED, "set the registry's connection in registries: of the configuration")
OWN: Final = Rule(Verdict.NOTED, "regwrap runs once per call and has its own settings")
PATTERN: Final = Rule(
    Verdict.REFUSED,
    "selects tags by a pattern, whose tags change over time: list the tags (see skopeo list-tags),"
    " or put the pattern under images: in the configuration, for regwrap lock",
)
EXTRAS: Final = Rule(Verdict.REFUSED, "requests unlisted images (signatures, SBOMs): list each, or remove the key")
SIGNATURES: Final = Rule(
    Verdict.REFUSED,
    "requires signed images, which regwrap does not check: check them (cosign), then remove the key",
)
ELSEWHERE: Final = Rule(Verdict.REFUSED, "changes the images' source: write the names used there, and remove the key")
