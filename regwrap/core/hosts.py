"""Names of hosts, as far as one registry has several of them."""

from __future__ import annotations

from typing import Final

DOCKER_HUB: Final = "docker.io"
HUB_NAMES: Final = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})


def normal_host(host: str) -> str:
    """The one name of a registry: in lower case, without the port that https has anyway, Docker Hub as docker.io."""
    name = host.lower().removesuffix(":443")
    return DOCKER_HUB if name in HUB_NAMES else name
