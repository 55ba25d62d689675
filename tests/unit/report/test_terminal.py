"""Who reads the log: a terminal, a CI's log, or neither."""

import io

import pytest

from regwrap.report.terminal import Folds, Reader, columns, reader_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "reader"),
    [
        (Terminal(), {"TERM": "xterm"}, Reader(live=True, colours=True, folds=Folds.NONE)),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, Reader(live=True, colours=False, folds=Folds.NONE)),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, Reader(live=True, colours=True, folds=Folds.NONE)),
        (Terminal(), {"TERM": "dumb"}, Reader(live=False, colours=False, folds=Folds.NONE)),
        (Terminal(), {}, Reader(live=False, colours=False, folds=Folds.NONE)),
        (Terminal(), {"TERM": "xterm", "CI": "true"}, Reader(live=False, colours=False, folds=Folds.NONE)),
        (io.StringIO(), {"TERM": "xterm"}, Reader(live=False, colours=False, folds=Folds.NONE)),
        (io.StringIO(), {"GITLAB_CI": "true"}, Reader(live=False, colours=False, folds=Folds.GITLAB)),
        (io.StringIO(), {"GITHUB_ACTIONS": "true"}, Reader(live=False, colours=False, folds=Folds.GITHUB)),
    ],
)
def test_live_lines_and_colours_are_for_terminals_and_sections_for_logs_that_know_them(
    stream: io.StringIO, environ: dict[str, str], reader: Reader
) -> None:
    assert reader_of(stream, environ) == reader


def test_what_is_no_terminal_has_80_columns() -> None:
    assert columns(io.StringIO()) == 80
