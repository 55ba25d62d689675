"""python -m regwrap."""

from __future__ import annotations

from regwrap.cli.program import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
