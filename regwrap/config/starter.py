"""The first configuration and the first list of a product, as texts with comments. Pure."""

from __future__ import annotations

import json
from typing import Final

from regwrap.core.errors import UsageError

CONFIGURATION: Final = "regwrap.yaml"
LIST: Final = "images.list"

_HEAD: Final = """\
# How regwrap reaches the registries of this directory's images.list; written by `regwrap init`, edit it as you like.
# A flag counts more than the environment (REGWRAP_SOURCE, REGWRAP_ARCHIVE, REGWRAP_JOBS), and that more than this file.
# Relative paths are relative to it.

# Registries by name. `url` is HOST[:PORT], with http:// for plain HTTP; `storage` is the directory behind a registry.
# Passwords are not kept here: `authfile` is the file that `skopeo login` writes.
"""
_MORE_OF_REGISTRY: Final = """\
    # authfile: auth.json       # default: where skopeo and docker keep theirs
    # cert_dir: certs           # a directory with the registry's own CA, as *.crt
    # tls_verify: false         # take any certificate
"""
_TAIL: Final = """
# How many images to copy in parallel, 1 to 64.
# jobs: 8

# Where large temporary files go (package --strategy overlay, workspace); in a container a volume.
# scratch: /var/tmp

# Where images go whose line does not say it: a prefix in front, and whether the host stays in the name.
# rewrite:
#   prefix: mirror/
#   keep_host: true

# More images than the lines of the list, for `regwrap lock`: every tag that fits.
# images:
#   - match: "team/*:v1.*"
#     newest: 3
"""
FIRST_LIST: Final = """\
# The images of a release, one a line. Lines without a host come from `source:` in regwrap.yaml.
#
# team/app:v1.4
# docker.io/library/postgres:16 => third-party/postgres:16
# team/agent:v2  platform=linux/amd64,linux/arm64
#
# `regwrap list from-manifests` and `regwrap list from-registry` write such lists.
"""


def configuration_text(source: str, archive: str) -> str:
    """A regwrap.yaml. Both are DIR or [http://]HOST[:PORT], checked; empty: every line has a host, and the embedded
    archive."""
    names = {"cicd": source, "archive": archive}
    registries = "".join(_registry(name, location) for name, location in names.items() if location)
    return (
        f"{_HEAD}registries:{'' if registries else ' {}'}\n{registries}\n"
        "# Where lines of images.list without a host come from: a name from above, HOST[:PORT], or a storage's DIR.\n"
        f"{'source: cicd' if source else '# source: cicd.example.com'}\n\n"
        "# Where images are kept, and bundles are made from; without it, in a directory of regwrap's own.\n"
        f"{'archive: archive' if archive else '# archive: ./archive'}\n"
        f"{_TAIL}"
    )


def _registry(name: str, location: str) -> str:
    text = json.dumps(location, ensure_ascii=not location.isprintable())
    if is_directory(location):
        return f"  {name}:\n    storage: {text}\n"
    return f"  {name}:\n    url: {text}\n{_MORE_OF_REGISTRY}"


def is_directory(location: str) -> bool:
    """Whether it is a path and not a host: it begins like one, or has a slash where a host has none."""
    if location.startswith("oci:"):
        raise UsageError(f"{location}: an image can be a history, not a source or archive")
    return location.startswith((".", "/", "~")) or ("://" not in location and "/" in location)
