"""What a browser gets from `serve`: the page of the bundle or storage, with the command that pulls each image."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.bundle.by_repository import StorageSource

if TYPE_CHECKING:
    from regwrap.bundle.image_set import ImageSet
    from regwrap.bundle.inspection import Inspection

_SECONDS: Final = 10.0  # a storage is looked at again after that
_HOSTS: Final = 4  # names under which one server is asked


def front_page(source: Path, contents: ImageSet | StorageSource) -> Callable[[str], str]:
    """A page for the host that was asked. It is made when somebody asks, one at a time."""
    made = _of_storage(contents) if isinstance(contents, StorageSource) else _of_bundle(source, contents)
    lock = threading.Lock()

    def page(host: str) -> str:
        with lock:
            return made(host)

    return page


def _of_bundle(source: Path, image_set: ImageSet) -> Callable[[str], str]:
    @cache
    def inspected() -> Inspection:
        from regwrap.bundle.inspection import inspect_opened  # a registry's clients never ask for it

        return inspect_opened(source, image_set)

    @lru_cache(_HOSTS)
    def made(host: str) -> str:
        from regwrap.report.page_bundle import bundle_page

        return bundle_page(inspected(), host)

    return made


def _of_storage(source: StorageSource) -> Callable[[str], str]:
    @lru_cache(_HOSTS)
    def made(host: str, _period: int) -> str:
        from regwrap.bundle.releases import read_releases
        from regwrap.commands.releases import site_images
        from regwrap.report.page_parts import ROWS
        from regwrap.report.page_site import storage_page

        images = site_images(source, read_releases(source.storage.tree))
        return storage_page(source.name, tuple(islice(images, ROWS + 1)), host)

    return lambda host: made(host, int(time.monotonic() / _SECONDS))
