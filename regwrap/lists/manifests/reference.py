"""Whether a text is a reference to an image, by how it is written: a slash, and a tag or a digest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from regwrap.core.model import ImageRef, ParseError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCHEMES: Final = ("oci://", "docker://", "docker-image://")
_PICTURE: Final = re.compile(r"(?:https?|file|data):\S+|\S+\.(?:png|svg|jpe?g|gif|ico|webp|iso|qcow2|img|vmdk)")
# `--flag=`, `-flag `, `NAME=`; what is behind it are one or more references
_FLAGGED: Final = re.compile(r"""(--?[A-Za-z][\w.-]*(?:=|[ ]+)|[A-Za-z0-9_.-]+=)?["']?([^\s"'].*?)["']?""")
_FLAGS: Final = re.compile(r"""(?<!\S)(--?[A-Za-z][\w.-]*)(?:=|[ ]+)["']?([^\s"'=,]+)["']?(?!\S)""")
_BETWEEN: Final = re.compile(r"[,;\s]+")
_NAMED: Final = re.compile(r"[\w.-]+=(.+)")
_LETTER: Final = re.compile(r"[a-z]")
_DIGITS: Final = re.compile(r"[0-9]+")
# What has the same shape: taints (key:Effect), volumes of Docker (name:mode), labels of Kubernetes
_NO_TAGS: Final = {"NoSchedule", "NoExecute", "PreferNoSchedule", "ro", "rw", "z", "Z"}
_LABELS: Final = re.compile(r"(?:.+\.)?(?:kubernetes\.io|k8s\.io)")
_REGISTRY: Final = "registry.k8s.io"
MAX_TEXT: Final = 4096  # a reference has no more than 600


def references_in(text: str, *, key: str = "", says_image: bool = False) -> tuple[str, ...]:
    """The references that a text consists of: alone, or several, or behind a flag. With a key that `says_image` one
    needs no slash."""
    if len(text) > MAX_TEXT or ":" not in text:  # a tag has one before it, a digest has one in it
        return ()
    flagged = _FLAGGED.fullmatch(text.strip())
    if flagged is None:
        return ()
    words = [word for word in _BETWEEN.split(flagged[2]) if word]
    says_image = says_image or "image" in (flagged[1] or "").lower()
    found = tuple(_each(words, key=key, says_image=says_image))
    # Words between references are prose, or a command; between commas anything may stand.
    if len(found) == len(words) or not re.search(r"[^,;\s]\s+[^,;\s]", flagged[2]):
        return found
    return tuple(_in_command(text))


def _in_command(text: str) -> Iterator[str]:
    """Behind flags (`run --image=r.example/a:1 --port 80`): with a registry, or where the flag says image."""
    for flag, value in _FLAGS.findall(text):
        bare = without_scheme(value)
        says_image = "image" in flag.lower()
        if _is_reference(bare, key="", says_image=says_image) and (says_image or has_host(bare)):
            yield bare


def _each(words: list[str], *, key: str, says_image: bool) -> Iterator[str]:
    for word in words:
        named = _NAMED.fullmatch(word)
        text = (named[1] if named else word).strip("\"'")
        bare = without_scheme(text)
        if _is_reference(bare, key=key, says_image=says_image or bare != text):
            yield bare


def without_scheme(text: str) -> str:
    scheme = next((scheme for scheme in _SCHEMES if text.startswith(scheme)), "")
    return text.removeprefix(scheme)


def has_host(text: str) -> bool:
    """Whether a text can hardly be anything but an image, even without a tag: it has a registry's host."""
    image = _parsed(text)
    return image is not None and image.registry is not None and not is_picture(text)


def is_picture(text: str) -> bool:
    """Whether an image is one to look at, or a disk: by its ending, or since it is a URL."""
    return _PICTURE.fullmatch(text) is not None


def _is_reference(text: str, *, key: str, says_image: bool) -> bool:
    if "/" not in text and "@sha256:" not in text and not says_image:
        return False
    image = _parsed(text)
    if image is None or (image.tag is None and image.digest is None) or not _LETTER.search(image.repository):
        return False
    return image.digest is not None or not _is_something_else(image, text, key)


def _is_something_else(image: ImageRef, text: str, key: str) -> bool:
    registry, tag = image.registry or "", image.tag or ""
    if tag in _NO_TAGS or (registry != _REGISTRY and _LABELS.fullmatch(registry)):
        return True
    if "/" not in text:  # host:port
        return bool(_DIGITS.fullmatch(tag)) and ("." in image.repository or image.repository == "localhost")
    return not registry and bool(_DIGITS.fullmatch(key) and _DIGITS.fullmatch(tag))  # ingress: port -> service:port


def _parsed(text: str) -> ImageRef | None:
    try:
        return ImageRef.parse(text)
    except ParseError:
        return None
