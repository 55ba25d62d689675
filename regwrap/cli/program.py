"""The program: its signals, and errors as text and exit codes.

Only here are errors turned into text: a RegwrapError has an exit code of its own, an OSError is the disk's word, an
interruption is one line, and anything else is a bug with its traceback.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import typer

from regwrap import __version__
from regwrap.cli.app import in_order, make_app, typed_words
from regwrap.cli.streams import STDOUT, discard, flush_streams, open_streams
from regwrap.core.errors import OUR_DISK_HINT, ExitCode, Interrupted, RegwrapError, ToolError, UsageError, error_text
from regwrap.core.interruption import handle_signals, let_signals_be, raise_again


def main() -> None:
    """The program: exit codes as in `errors.ExitCode`, 128 + n after signal n."""
    open_streams()
    collect_seldom()
    sys.unraisablehook = lambda unraisable: None if raise_again(unraisable) else sys.__unraisablehook__(unraisable)
    try:
        handle_signals()
        code = exit_code_of(_run)
        let_signals_be()
    except Interrupted as interruption:  # it came before the run, or when its end was being told
        code = _report_interruption(interruption)
    _leave(code)


def collect_seldom() -> None:
    """Python looks for cycles whenever there are 700 more objects, now and then among all: a third of the time that a
    list of 100,000 images takes. Our values have none."""
    gc.set_threshold(100_000, 50, 100)


def _leave(code: int) -> NoReturn:
    """End the process. What Python would free piece by piece the kernel frees at once, which saves a short run a
    tenth of its time. Where a thread is still at work, or a stream cannot be written, Python ends it."""
    flush_streams()
    if threading.active_count() == 1:
        os._exit(code)
    sys.exit(code)


def _run() -> None:
    # by any name: the completions ask $_REGWRAP_COMPLETE
    make_app(typed_words(sys.argv[1:], os.environ))(in_order(sys.argv[1:]), prog_name="regwrap")


def exit_code_of(run: Callable[[], object]) -> int:
    try:
        run()
    except SystemExit as exit_:
        if isinstance(exit_.__context__, BrokenPipeError):  # click says 1, which is "some images failed"
            return _report_error(exit_.__context__)
        return exit_.code if isinstance(exit_.code, int) else ExitCode.DONE
    except (Interrupted, Exception) as error:  # a bug must not look like "some images failed"
        interruption = _interruption_behind(error)
        if interruption is None:
            return _report_error(error)
        return _report_interruption(interruption)
    return ExitCode.DONE


def _interruption_behind(error: BaseException | None) -> Interrupted | None:
    """A signal that comes while Python's own locks are taken or released leaves them undone, and their error, or one of
    the tidying up, is what arrives here (CPython runs handlers between any two instructions of the main thread)."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error


def _report_interruption(interruption: Interrupted) -> int:
    name = signal.Signals(interruption.signum).name
    _log(f"regwrap: interrupted ({name}). Child processes were stopped; rerun to continue.")
    return 128 + interruption.signum


def _report_error(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):
        discard(1)  # its reader went away
        return 128 + signal.SIGPIPE
    if isinstance(error, OSError | UsageError) and not _has_directory():
        error = UsageError("the working directory was deleted", hint="cd to one that is there and rerun")
    if isinstance(error, OSError):
        error = _disk_error(error)
    if isinstance(error, ImportError):  # most are loaded when they are needed
        hint = "the disk is failing or the installation is incomplete: install regwrap again"
        error = ToolError(f"a part of regwrap cannot be loaded: {error}", hint=hint)
    if isinstance(error, RegwrapError):
        _log(error_text(error))
        return error.exit_code
    text = "".join(traceback.format_exception(error))
    _log(f"{text}regwrap: this is a bug in regwrap {__version__}; please report it")
    return ExitCode.BUG


def _has_directory() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _log(text: str) -> None:
    """The last word; where it cannot be written the exit code still is the right one."""
    from regwrap.core.text import printable

    with suppress(OSError):
        typer.echo(printable(text, keep="\n\t"), err=True)


def _disk_error(error: OSError) -> RegwrapError:
    where = f"{error.filename}: " if error.filename else ""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT} and error.filename != STDOUT
    hint = OUR_DISK_HINT if full else ""
    return RegwrapError(f"{where}{error.strerror or error}", hint=hint)
