"""python -m regwrap."""

from __future__ import annotations

import signal

# Until the handlers are there, which takes typer's import, Ctrl-C just ends Python, as SIGTERM does: no traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from regwrap.cli.program import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
