"""regsync: entries with source and target."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from regwrap.lists.formats.values import (
    BadValueError,
    Found,
    Rule,
    Verdict,
    items_of,
    needed,
    platforms_of,
    reference_of,
    shown,
    text_of,
)
from regwrap.lists.formats.verdicts import _CREDENTIALS, _ELSEWHERE, _EXTRAS, _OWN, _PATTERN, _READ, _TLS

if TYPE_CHECKING:
    from regwrap.lists.yaml_nodes import Node

_REGSYNC: Final = {
    **dict.fromkeys(("version", "creds", "defaults", "sync"), _READ),
    "x-": Rule(Verdict.NOTED, "it is an extension of yours"),
}


_REGSYNC_CREDS: Final = {
    "registry": _READ,
    **dict.fromkeys(("user", "pass", "token", "credHelper", "credExpire", "repoAuth"), _CREDENTIALS),
    **dict.fromkeys(("tls", "scheme", "regcert", "clientCert", "clientKey", "mirrors", "priority", "api"), _TLS),
    **dict.fromkeys(("blobChunk", "blobMax", "reqPerSec", "reqConcurrent"), _OWN),
    **dict.fromkeys(("hostname", "pathPrefix"), _ELSEWHERE),
    "x-": _REGSYNC["x-"],
}


_REGSYNC_COMMON: Final = {
    **dict.fromkeys(("interval", "schedule", "ratelimit", "backup", "hooks", "fastCopy", "forceRecursive"), _OWN),
    **dict.fromkeys(("referrerFilters", "referrerSource", "referrerTarget"), _OWN),
    **dict.fromkeys(("referrers", "digestTags"), _EXTRAS),
    "mediaTypes": Rule(Verdict.REFUSED, "leaves images of other types out: leave them out of the list"),
    "x-": _REGSYNC["x-"],
}


_REGSYNC_DEFAULTS: Final = {
    **_REGSYNC_COMMON,
    **dict.fromkeys(("parallel", "cacheCount", "cacheTime", "skipDockerConfig", "userAgent"), _OWN),
}


_REGSYNC_SYNC: Final = {
    **_REGSYNC_COMMON,
    **dict.fromkeys(("source", "target", "type", "platform"), _READ),
    **dict.fromkeys(
        ("tags", "tagSets", "repos", "targetTag"), Rule(Verdict.NOTED, "an entry of type image has no pattern")
    ),
}


def read_regsync(found: Found, root: Node) -> None:
    fields = found.fields(root, "", _REGSYNC)
    if "version" in fields and text_of(fields["version"], "version") != "1":
        raise BadValueError(fields["version"], "`version`: only 1 is known")
    with found.collected():
        for node in items_of(fields["creds"], "creds") if "creds" in fields else ():
            found.fields(node, "creds", _REGSYNC_CREDS)
    with found.collected():
        found.fields(fields["defaults"], "defaults", _REGSYNC_DEFAULTS) if "defaults" in fields else {}
    for node in items_of(fields["sync"], "sync") if "sync" in fields else ():
        with found.collected():
            _read_regsync_entry(found, node)


def _read_regsync_entry(found: Found, node: Node) -> None:
    fields = found.fields(node, "sync", _REGSYNC_SYNC)
    kind, source, target = (needed(fields, key, node, "sync") for key in ("type", "source", "target"))
    if text_of(kind, "sync.type") != "image":
        raise BadValueError(
            kind, f"`sync.type` {shown(text_of(kind, 'sync.type'))} {_PATTERN.why}, each with type: image"
        )
    dest = reference_of(target, text_of(target, "sync.target"))
    if not dest.tag and not dest.digest:
        found.note(target, "a target without a tag is latest, as regsync has it")
        dest = replace(dest, tag="latest")
    platforms = platforms_of(fields.get("platform"), "sync.platform")
    found.add(source, reference_of(source, text_of(source, "sync.source")), dest=dest, platforms=platforms)
