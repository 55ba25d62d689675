"""umoci: its flags, in one place. It makes OCI layouts and changes an image's configuration; it needs no root for that.

It never gets a layer to write (forms/baked_layer.py makes them), and a time with every call: else it stamps the
current one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.tools.runner import Command, Runner, Tool

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What a container of the image runs. `entrypoint` empty: as the base has it."""

    entrypoint: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    port: str
    clear_volumes: bool


@dataclass(frozen=True, slots=True)
class Umoci:
    """`stall`: seconds without progress after which it is ended."""

    runner: Runner
    stall: float

    def init(self, layout: Path) -> None:
        """Make an empty layout; the directory must not be there."""
        self._run("init", "--layout", f"{layout}")

    def configure(self, layout: Path, tag: str, run: RunConfig, *, created: str) -> None:
        """Change the image's configuration in place."""
        clear = ("config.cmd", "config.entrypoint") if run.entrypoint else ()
        volumes = ("config.volume",) if run.clear_volumes else ()
        self._run(
            "config", "--image", f"{layout}:{tag}",
            "--no-history", "--created", created,
            *(part for name in (*clear, *volumes) for part in ("--clear", name)),
            *(part for word in run.entrypoint for part in ("--config.entrypoint", word)),
            *(part for name, value in run.environment for part in ("--config.env", f"{name}={value}")),
            "--config.exposedports", run.port,
        )  # fmt: skip

    def _run(self, *args: str) -> None:
        self.runner.run(Command(tool=Tool.UMOCI, args=args, stall=self.stall))
