"""A signal finds a run whose end is one line, whenever it comes."""

import itertools
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.tools


_AT_LINE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
from regwrap.cli import program
lines, last = 0, int(sys.argv[1])
def trace(frame, event, _arg):
    global lines
    if frame.f_code.co_filename != program.__file__ or frame.f_code.co_name not in {"main", "collect_seldom"}:
        return None
    lines += event in {"line", "call"}
    if lines == last:
        sys.settrace(None)
        os.kill(os.getpid(), signal.SIGINT)
        return None
    return trace
sys.argv = ["regwrap", "--version"]
sys.settrace(trace)
program.main()
"""


def test_ctrl_c_is_one_line_or_the_end_from_the_first_line_on() -> None:
    """Before there are handlers it just ends the process, as SIGTERM does."""
    told = []
    for line in itertools.count(1):
        run = subprocess.run([sys.executable, "-c", _AT_LINE, f"{line}"], capture_output=True, text=True, check=False)
        if run.returncode == 0:
            break  # the run has no such line
        told.append((run.returncode, run.stderr))
    line_of_it = "regwrap: interrupted (SIGINT). Child processes were stopped; rerun to continue.\n"
    assert set(told) == {(-signal.SIGINT, ""), (130, line_of_it)}
