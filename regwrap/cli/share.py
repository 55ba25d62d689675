"""What an installation has beside the program: the manual page, and completions where bash, zsh and fish look for them.

`hatch_build.py` puts these into the wheel, so they come with `pip install` and lie below `share` of pipx's environment.
"""

from __future__ import annotations

import os
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import Final

from regwrap.cli.app import make_app
from regwrap.cli.manpage import manual_page

_VARIABLE: Final = "_REGWRAP_COMPLETE"
# zsh runs the file at the first completion, as a function, which then has to answer
_FIRST_ANSWER: Final = """if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _regwrap_completion "$@"; fi
"""
_COMPLETIONS: Final = {
    "bash": "share/bash-completion/completions/regwrap",
    "zsh": "share/zsh/site-functions/_regwrap",
    "fish": "share/fish/vendor_completions.d/regwrap.fish",
}


def shared_files(date: str) -> dict[str, str]:
    """Each file's text by its path below an installation's prefix. `date` is the manual page's, empty for none."""
    page = {"share/man/man1/regwrap.1": manual_page(date)}
    return {**page, **{path: _completion(shell) for shell, path in _COMPLETIONS.items()}}


def _completion(shell: str) -> str:
    """The script, asked for as a shell does: by a variable."""
    script = StringIO()
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = f"source_{shell}"
    try:
        with redirect_stdout(script), suppress(SystemExit):
            make_app(())([], prog_name="regwrap")
    finally:
        del os.environ[_VARIABLE]
        if before is not None:
            os.environ[_VARIABLE] = before
    # zsh looks for #compdef in the first line
    return f"{script.getvalue().strip()}\n{_FIRST_ANSWER if shell == 'zsh' else ''}"
