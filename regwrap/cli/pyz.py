"""`python -m regwrap.cli.pyz FILE` writes regwrap as one file that python3 runs, and its checksum: `make pyz`."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from regwrap.commands.pyz import write_pyz


def main() -> None:
    path = Path(sys.argv[1])
    sha256 = write_pyz(path)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, sha256 {sha256}")


if __name__ == "__main__":
    main()
