"""oc-mirror: the `additionalImages:` of an ImageSetConfiguration. What else it asks for only oc-mirror can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.lists.formats.references import add_references
from regwrap.lists.formats.values import BadValueError, Found, Rule, Verdict, items_of
from regwrap.lists.formats.verdicts import OWN, READ

if TYPE_CHECKING:
    from regwrap.lists.yaml_nodes import Node

_ELSEWHERE: Final = Rule(
    Verdict.REFUSED,
    "selects images that only oc-mirror can resolve: list those in mapping.txt of oc-mirror --dry-run",
)
_ROOT: Final = {
    **dict.fromkeys(("apiVersion", "kind", "mirror"), READ),
    **dict.fromkeys(("metadata", "storageConfig", "archiveSize"), OWN),
}
_MIRROR: Final = {
    "additionalImages": READ,
    **dict.fromkeys(("platform", "operators", "helm", "samples"), _ELSEWHERE),
    "blockedImages": Rule(Verdict.NOTED, "it excludes images of operators, which regwrap does not read"),
}


def read_oc_mirror(found: Found, root: Node) -> None:
    fields = found.fields(root, "", _ROOT)
    if "mirror" not in fields:
        raise BadValueError(root, "`mirror` is missing")
    mirror = found.fields(fields["mirror"], "mirror", _MIRROR)
    if "additionalImages" in mirror:
        add_references(found, items_of(mirror["additionalImages"], "mirror.additionalImages"))
