"""All forms in which a mapping names images, in the order in which they are asked: what one has used no other uses.

A new form is a function in a file of its own, a line here, and a case in tests/samples/manifests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.lists.manifests.image_key import image_key
from regwrap.lists.manifests.kustomize import kustomize
from regwrap.lists.manifests.lists_of_images import lists_of_images
from regwrap.lists.manifests.named_value import named_parts, named_value
from regwrap.lists.manifests.oci_url import oci_url, package
from regwrap.lists.manifests.openshift import image_stream
from regwrap.lists.manifests.other_keys import other_keys
from regwrap.lists.manifests.repository_key import repository_key, repository_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regwrap.lists.manifests.mapping import Fields, Mention

FORMS: Final[tuple[Callable[[Fields], Iterator[Mention]], ...]] = (
    kustomize,
    image_stream,
    image_key,
    repository_tags,
    repository_key,
    lists_of_images,
    named_parts,
    named_value,
    oci_url,
    package,
    other_keys,
)
