"""The formats: which keys mean what, and how images are read from them. Pure; problems and notes go to Found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from regwrap import yamlnode
from regwrap.listformats.found import (
    BadValueError,
    Found,
    Rule,
    Verdict,
    is_null,
    items_of,
    needed,
    pairs_of,
    platforms_of,
    quoted,
    reference_of,
    says_nothing,
    scalar_of,
    shown,
    text_of,
)
from regwrap.model import ImageRef, is_tag
from regwrap.yamlnode import Node, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterator

# --- what becomes of the keys of each format

_READ: Final = Rule(Verdict.READ)
_CREDENTIALS: Final = Rule(Verdict.NOTED, "credentials are read from an authfile (skopeo login)")
_TLS: Final = Rule(Verdict.NOTED, "registries: in the configuration says how a registry is reached")
_OWN: Final = Rule(Verdict.NOTED, "regwrap runs once when it is called, in its own way")
_PATTERN: Final = Rule(
    Verdict.REFUSED,
    "chooses tags by a pattern, which may mean others tomorrow: list the tags themselves (skopeo list-tags has them),"
    " or put the pattern under images: in the configuration, for regwrap lock",
)
_EXTRAS: Final = Rule(
    Verdict.REFUSED, "asks for images that are not listed (signatures, SBOMs): list each, or take the key out"
)
_SIGNATURES: Final = Rule(
    Verdict.REFUSED,
    "lets only signed images in, which is not checked here: check them (cosign), then take the key out",
)
_ELSEWHERE: Final = Rule(
    Verdict.REFUSED, "changes where images come from: write their names as they are there, and take the key out"
)

_SKOPEO: Final = {
    "images": _READ,
    "images-by-tag-regex": _PATTERN,
    "images-by-semver": _PATTERN,
    "credentials": _CREDENTIALS,
    "tls-verify": _TLS,
    "cert-dir": _TLS,
}
_SYNCER: Final = {"images": _READ, "auth": _CREDENTIALS}
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
_HAULER: Final = dict.fromkeys(("apiVersion", "kind", "metadata", "spec"), _READ)
_HAULER_COMMON: Final = {
    **dict.fromkeys(("platform", "exclude-extras"), _READ),
    **dict.fromkeys(("key", "use-tlog-verify", "certificate-identity", "certificate-identity-regexp"), _SIGNATURES),
    **dict.fromkeys(("certificate-oidc-issuer", "certificate-oidc-issuer-regexp"), _SIGNATURES),
    "certificate-github-workflow-repository": _SIGNATURES,
    **dict.fromkeys(("ca-file", "insecure-skip-tls-verify"), _TLS),
}
_HAULER_IMAGE: Final = {
    **dict.fromkeys(("name", "rewrite"), _READ),
    **_HAULER_COMMON,
    "local": Rule(Verdict.REFUSED, "takes the image from a Docker daemon: push it to a registry first"),
}
_HAULER_ANNOTATIONS: Final = {
    f"hauler.dev/{key}": rule
    for key, rule in {
        "registry": _READ,
        **_HAULER_COMMON,
        **dict.fromkeys(("store", "retries"), _OWN),
        **dict.fromkeys(
            ("rewrite", "prefix"),
            Rule(Verdict.REFUSED, "changes where images go: put rewrite: in the configuration, and take the key out"),
        ),
    }.items()
}
_LOCK: Final = dict.fromkeys(("apiVersion", "kind", "images"), _READ)
_LOCK_IMAGE: Final = dict.fromkeys(("image", "annotations"), _READ)


# --- skopeo sync: registry -> images -> repository -> tags and digests


def read_skopeo(found: Found, root: Node) -> None:
    for registry, section in pairs_of(root, ""):
        with found.collected():
            fields = found.fields(section, f"{registry.text}", _SKOPEO)
            for repository, tags in pairs_of(fields["images"], f"{registry.text}.images") if "images" in fields else ():
                with found.collected():
                    _read_skopeo_tags(found, f"{registry.text}/{repository.text}", repository, tags)


def _read_skopeo_tags(found: Found, name: str, repository: Scalar, tags: Node) -> None:
    if is_null(tags) or not items_of(tags, name):
        raise BadValueError(repository, f"{quoted(name)} without tags means all of them: list them (skopeo list-tags)")
    for node in items_of(tags, name):
        with found.collected():
            tag = text_of(node, name)
            found.add(node, reference_of(node, f"{name}{'@' if ':' in tag else ':'}{tag}"))


# --- image-syncer: source -> destination, or a list of them


def read_syncer_config(found: Found, root: Node) -> None:
    read_syncer(found, found.fields(root, "", _SYNCER)["images"])


def read_syncer(found: Found, root: Node) -> None:
    for key, value in pairs_of(root, "images"):
        with found.collected():
            sources = _references(key, f"{key.text}")
            if not sources[0].tag and not sources[0].digest:
                raise BadValueError(
                    key, f"{quoted(f'{key.text}')} without a tag means all tags: list them (skopeo list-tags)"
                )
            dests = value.items if isinstance(value, Sequence) else (value,)
            if not dests:
                raise BadValueError(value, f"{quoted(f'{key.text}')}: the destination is missing")
            for dest in dests:
                with found.collected():
                    _add_syncer(found, dest, sources, _references(dest, text_of(dest, f"{key.text}")))


def _add_syncer(found: Found, node: Node, sources: tuple[ImageRef, ...], dests: tuple[ImageRef, ...]) -> None:
    if len(dests) == 1 and not dests[0].tag:
        dests *= len(sources)
    if len(dests) != len(sources):
        raise BadValueError(node, f"the source has {len(sources)} tags, the destination {len(dests)}")
    for source, dest in zip(sources, dests, strict=True):
        found.add(node, source, dest=dest)


def _references(node: Node, text: str) -> tuple[ImageRef, ...]:
    """`name:tag,tag,…`"""
    if ":/" in text.removeprefix("docker://"):
        raise BadValueError(node, f"{quoted(text)} {_PATTERN.why}")
    first, *more = text.split(",")
    image = reference_of(node, first)
    odd = next((tag for tag in more if not is_tag(tag) or not image.tag or image.digest), None)
    if odd is not None:
        raise BadValueError(node, f"not a tag: {shown(odd)}")
    return (image, *(replace(image, tag=tag) for tag in more))


# --- regsync: entries with source and target


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


# --- hauler: documents of kind Images, with annotations for all of them


def read_hauler(found: Found, root: Node) -> None:
    kind, version = scalar_of(root, "kind"), scalar_of(root, "apiVersion")
    if version is None or not (version.text or "").startswith("content.hauler.cattle.io/"):
        raise BadValueError(version or root, "`apiVersion`: expected content.hauler.cattle.io/v1")
    if kind and kind.text != "Images":
        _pass_over(found, root, kind)
        return
    fields = found.fields(root, "", _HAULER)
    common = _hauler_annotations(found, fields.get("metadata"))
    registry = text_of(common["registry"], "hauler.dev/registry") if "registry" in common else "docker.io"
    spec = found.fields(fields["spec"], "spec", {"images": _READ}) if "spec" in fields else {}
    for node in items_of(spec["images"], "spec.images") if "images" in spec else ():
        with found.collected():
            _read_hauler_image(found, node, common, registry)


def _hauler_annotations(found: Found, metadata: Node | None) -> dict[str, Node]:
    pairs = pairs_of(metadata, "metadata") if metadata else ()
    annotations = next((value for key, value in pairs if key.text == "annotations" and not is_null(value)), None)
    if annotations is None:
        return {}
    own = tuple(pair for pair in pairs_of(annotations, "annotations") if f"{pair[0].text}".startswith("hauler.dev/"))
    mapping = yamlnode.Mapping(pairs=own, line=annotations.line, column=annotations.column)
    fields = found.fields(mapping, "", _HAULER_ANNOTATIONS)
    return {key.removeprefix("hauler.dev/"): value for key, value in fields.items()}


def _read_hauler_image(found: Found, node: Node, common: dict[str, Node], registry: str) -> None:
    fields = found.fields(node, "spec.images", _HAULER_IMAGE)
    name = needed(fields, "name", node, "spec.images")
    if all(says_nothing(of["exclude-extras"]) for of in (fields, common) if "exclude-extras" in of):
        found.note(name, "signatures and SBOMs, which hauler takes along, are not: only what is listed")
    rewrite = fields.get("rewrite")
    found.add(
        name,
        reference_of(name, text_of(name, "spec.images.name"), registry),
        dest=reference_of(rewrite, text_of(rewrite, "spec.images.rewrite"), None) if rewrite else None,
        platforms=platforms_of(fields.get("platform") or common.get("platform"), "platform"),
    )


def _pass_over(found: Found, root: Node, kind: Scalar) -> None:
    found.note(kind, f"documents of the kind {kind.text} are not read, only images are")
    added = (key for key, value in _keys_below(root) if key.text == "add-images" and not says_nothing(value))
    if key := next(added, None):
        raise BadValueError(key, "`add-images` asks for the images of a chart: list them (helm template shows them)")


def _keys_below(node: Node) -> Iterator[tuple[Scalar, Node]]:
    pairs = node.pairs if isinstance(node, yamlnode.Mapping) else ()
    yield from pairs
    items = node.items if isinstance(node, Sequence) else tuple(value for _key, value in pairs)
    for item in items:
        yield from _keys_below(item)


# --- ImagesLock: digests, with kbld's name for each as an annotation


def read_lock(found: Found, root: Node) -> None:
    fields = found.fields(root, "", _LOCK)
    version = needed(fields, "apiVersion", root, "ImagesLock")
    if not text_of(version, "apiVersion").startswith("imgpkg.carvel.dev/"):
        raise BadValueError(version, "`apiVersion`: expected imgpkg.carvel.dev/v1alpha1")
    for node in items_of(fields["images"], "images") if "images" in fields else ():
        with found.collected():
            entry = found.fields(node, "images", _LOCK_IMAGE)
            name = needed(entry, "image", node, "images")
            image = reference_of(name, text_of(name, "images.image"))
            if not image.digest:
                raise BadValueError(name, "`images.image`: a lock names digests (name@sha256:…)")
            found.add(name, image, tag=_kbld_tag(image, entry.get("annotations")))


def _kbld_tag(image: ImageRef, annotations: Node | None) -> str | None:
    """The tag under which kbld found the image, if it was in the same repository."""
    name = scalar_of(annotations, "kbld.carvel.dev/id") if annotations else None
    try:
        original = reference_of(name, name.text) if name and name.text else None
    except BadValueError:  # any text may stand there: ko://… is none of ours
        return None
    return original.tag if original and original.name == image.name else None
