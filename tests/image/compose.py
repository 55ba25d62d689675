"""Services of a compose file as containers, in one network without a way out, where each is reached by its name.

A daemon of a test has no bridge, which `docker compose` wants. So what differs is the network, and the image of those
that have another one than regwrap's; commands, settings and volumes are the file's.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.dockerd import Docker


@dataclass(frozen=True)
class Composition:
    """`place` is where the file's relative paths begin. All services have one image, whatever the file says."""

    docker: Docker
    image: str
    place: Path
    services: Mapping[str, Mapping[str, Any]]

    def up(self, service: str, *command: str, count: int = 1) -> None:
        for _ in range(count):
            self._docker("run", "--detach", *self._words(service), *(command or self._command(service)))

    def run(self, service: str, *command: str) -> str:
        """In the foreground: what it writes to stdout."""
        return self._docker("run", "--rm", *self._words(service), *(command or self._command(service)))

    def _words(self, service: str) -> list[str]:
        said = self.services[service]
        settings = [f"{name}={value}" for name, value in said.get("environment", {}).items()]
        volumes = [f"{self.place}{one[1:]}" if one.startswith(".") else one for one in said.get("volumes", ())]
        options = [*(f"--env={one}" for one in settings), *(f"--volume={one}" for one in volumes)]
        return ["--network=container:network", *options, self.image]

    def _command(self, service: str) -> list[str]:
        return list(self.services[service]["command"])

    def _docker(self, *words: str) -> str:
        done = self.docker(*words)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}{self._logs()}"
        return done.stdout

    def _logs(self) -> str:
        names = self.docker("ps", "--all", "--quiet").stdout.split()
        return "".join(logs.stdout + logs.stderr for logs in (self.docker("logs", name) for name in names))


@contextmanager
def composed(
    docker: Docker, image: str, file: Path, place: Path, more: Mapping[str, Mapping[str, Any]]
) -> Iterator[Composition]:
    """Those of the file and `more`, of which none is up yet. At the end all containers and volumes of the daemon are
    removed."""
    services = {**yaml.safe_load(file.read_text())["services"], **more}
    names = [word for name in (*services, "network") for word in ("--add-host", f"{name}:127.0.0.1")]
    try:
        network = ("--name", "network", "--hostname", "network", "--network", "none", *names)
        started = docker("run", "--detach", *network, image, "sleep", "infinity")
        assert started.returncode == 0, started.stderr
        yield Composition(docker, image, place, services)
    finally:
        left = docker("ps", "--all", "--quiet").stdout.split()
        docker("rm", "--force", "--volumes", *left)
        docker("volume", "rm", "--force", *docker("volume", "ls", "--quiet").stdout.split())
