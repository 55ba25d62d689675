"""What a run of the tests inherits from the shell that starts it, and its programs should not."""

import signal

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def hear_signals() -> None:
    """`nohup make test &` hands down signals that are ignored, and tests send them to what they start. A handler that
    does nothing keeps the tests themselves as deaf, but no program inherits it (execve(2))."""
    for number in _NUMBERS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
