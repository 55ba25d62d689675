"""Puts the manual page and the completions into the wheel, generated from this tree. Hatchling runs it."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface[Any]):
    """What the program imports to say its help is installed for the build by `require-runtime-dependencies`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from regwrap.cli.share import shared_files

        self.place = TemporaryDirectory()
        for name, text in shared_files(_date()).items():
            path = Path(self.place.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            build_data["shared_data"][f"{path}"] = name

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        del build_data, artifact_path
        if version != "editable":
            self.place.cleanup()


def _date() -> str:
    """Of $SOURCE_DATE_EPOCH; else none, so that one source gives one wheel on any day."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return f"{datetime.fromtimestamp(int(epoch), UTC):%Y-%m-%d}" if epoch.isdecimal() else ""
