"""regsync: entries with source and target."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from regwrap.core.model import is_tag
from regwrap.lists.formats.values import (
    BadValueError,
    Found,
    Rule,
    Verdict,
    items_of,
    keys_of,
    needed,
    platforms_of,
    reference_of,
    scalar_of,
    shown,
    text_of,
)
from regwrap.lists.formats.verdicts import CREDENTIALS, ELSEWHERE, EXTRAS, OWN, PATTERN, READ, TLS

if TYPE_CHECKING:
    from regwrap.lists.yaml_nodes import Node

_REGSYNC: Final = {
    **dict.fromkeys(("version", "creds", "defaults", "sync"), READ),
    "x-": Rule(Verdict.NOTED, "it is a custom extension"),
}


_REGSYNC_CREDS: Final = {
    "registry": READ,
    **dict.fromkeys(("user", "pass", "token", "credHelper", "credExpire", "repoAuth"), CREDENTIALS),
    **dict.fromkeys(("tls", "scheme", "regcert", "clientCert", "clientKey", "mirrors", "priority", "api"), TLS),
    **dict.fromkeys(("blobChunk", "blobMax", "reqPerSec", "reqConcurrent"), OWN),
    **dict.fromkeys(("hostname", "pathPrefix"), ELSEWHERE),
    "x-": _REGSYNC["x-"],
}


_REGSYNC_COMMON: Final = {
    **dict.fromkeys(("interval", "schedule", "ratelimit", "backup", "hooks", "fastCopy", "forceRecursive"), OWN),
    **dict.fromkeys(("referrerFilters", "referrerSource", "referrerTarget"), OWN),
    **dict.fromkeys(("referrers", "digestTags"), EXTRAS),
    "mediaTypes": Rule(Verdict.REFUSED, "excludes images of other types: remove them from the list"),
    "x-": _REGSYNC["x-"],
}


_REGSYNC_DEFAULTS: Final = {
    **_REGSYNC_COMMON,
    **dict.fromkeys(("parallel", "cacheCount", "cacheTime", "skipDockerConfig", "userAgent"), OWN),
}


_REGSYNC_SYNC: Final = {
    **_REGSYNC_COMMON,
    **dict.fromkeys(("source", "target", "type", "platform"), READ),
    **dict.fromkeys(
        ("tags", "tagSets", "repos", "targetTag"), Rule(Verdict.NOTED, "an entry of type image has no pattern")
    ),
}
# An entry of type repository may have a pattern; one that is a plain tag means that tag alone.
_REGSYNC_REPOSITORY: Final = {**_REGSYNC_SYNC, "tags": READ, "tagSets": PATTERN}
_REGSYNC_TAGS: Final = {"allow": READ, **dict.fromkeys(("deny", "semverRange"), PATTERN)}


def is_regsync(root: Node) -> bool:
    return "sync" in keys_of(root)


def read_regsync(found: Found, root: Node) -> None:
    fields = found.fields(root, "", _REGSYNC)
    if "version" in fields and text_of(fields["version"], "version") != "1":
        raise BadValueError(fields["version"], "`version`: only 1 is supported")
    with found.collected():
        for node in items_of(fields["creds"], "creds") if "creds" in fields else ():
            found.fields(node, "creds", _REGSYNC_CREDS)
    with found.collected():
        found.fields(fields["defaults"], "defaults", _REGSYNC_DEFAULTS) if "defaults" in fields else {}
    for node in items_of(fields["sync"], "sync") if "sync" in fields else ():
        with found.collected():
            _read_regsync_entry(found, node)


def _read_regsync_entry(found: Found, node: Node) -> None:
    kind = scalar_of(node, "type")
    if kind and kind.text == "repository":
        _read_regsync_repository(found, node)
        return
    fields = found.fields(node, "sync", _REGSYNC_SYNC)
    type_, source, target = (needed(fields, key, node, "sync") for key in ("type", "source", "target"))
    if text_of(type_, "sync.type") != "image":
        raise BadValueError(
            type_, f"`sync.type` {shown(text_of(type_, 'sync.type'))} {PATTERN.why}, each with type: image"
        )
    dest = found.dest(target, text_of(target, "sync.target"))
    if not dest.tag and not dest.digest:
        found.note(target, "a target without a tag becomes latest, as in regsync")
        dest = replace(dest, tag="latest")
    platforms = platforms_of(fields.get("platform"), "sync.platform")
    found.add(source, reference_of(source, text_of(source, "sync.source")), dest=dest, platforms=platforms)


def _read_regsync_repository(found: Found, node: Node) -> None:
    """A repository with the tags that `allow` names, each a text without anything that makes it a pattern."""
    fields = found.fields(node, "sync", _REGSYNC_REPOSITORY)
    source, target = (needed(fields, key, node, "sync") for key in ("source", "target"))
    if "tags" not in fields:
        raise BadValueError(node, f"an entry of type repository without tags {PATTERN.why}")
    tags = found.fields(fields["tags"], "sync.tags", _REGSYNC_TAGS)
    image = reference_of(source, text_of(source, "sync.source"))
    dest = found.dest(target, text_of(target, "sync.target"))
    platforms = platforms_of(fields.get("platform"), "sync.platform")
    if not keys_of(fields["tags"]):
        raise BadValueError(fields["tags"], f"`sync.tags` without tags {PATTERN.why}")
    for item in items_of(tags["allow"], "sync.tags.allow") if "allow" in tags else ():
        with found.collected():
            tag = text_of(item, "sync.tags.allow")
            if not is_tag(tag):
                raise BadValueError(item, f"`sync.tags.allow` {shown(tag)} {PATTERN.why}")
            found.add(item, replace(image, tag=tag), dest=replace(dest, tag=tag), platforms=platforms)
