"""Regwrap with its modules loaded, forked for each start: the real program without the time that imports take.

Reads a line of JSON for each request: `start` forks, and answers with the process; `wait` answers with the exit code of
one that has ended. Ends when its input does. A `traced` start waits until strace has attached itself, so that system
calls are counted from regwrap's first own one.
"""

import codecs
import faulthandler
import json
import os
import pkgutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from contextlib import redirect_stderr, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import regwrap
import regwrap.__main__ as entry
from regwrap.cli import program
from regwrap.cli.app import every_word, make_app


def main() -> None:
    _warm_up()
    while line := sys.stdin.readline():
        request = json.loads(line)
        if request["op"] == "wait":
            _pid, status, used = os.wait4(request["pid"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status), "memory": used.ru_maxrss * 1024}
        else:
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                _become(request, ready=writing)
                _run()
            os.close(writing)
            os.read(reading, 1)  # strace must not come before the child is what it shall be
            os.close(reading)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _run() -> NoReturn:
    """What Python does with a program, but for taking its modules apart, which costs a fork 0.2 s."""
    code = 1
    try:
        entry.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon and thread.ident is not None:
            thread.join()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _warm_up() -> None:
    """Typer loads what it needs for parameters when it is first called."""
    for name in ("ascii", "latin-1", "idna", "utf-16"):  # another user may not be able to read Python's files
        codecs.lookup(name)
    for module in (*_modules_of(regwrap), "sh", "tenacity", "yaml", "http.client"):  # loaded by who needs them
        import_module(module)
    sys.argv = ["regwrap", "inspect", "/nonexistent"]
    with Path(os.devnull).open("w", encoding="utf-8") as nothing, redirect_stderr(nothing):
        program.exit_code_of(lambda: make_app(every_word())(prog_name="regwrap"))


def _modules_of(package: ModuleType) -> list[str]:
    names = [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [name for name in names if not name.endswith("__main__")]


def _become(request: dict[str, Any], *, ready: int) -> None:
    os.setsid()
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["env"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = ((request["stdin"], os.O_RDONLY), (request["out"], flags), (request["err"], flags))
    for number, (path, how) in enumerate(files):
        descriptor = os.open(path, how, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = ["regwrap", *request["argv"]]
    tempfile.tempdir = None  # of its own environment
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # for a run that hangs
    os.close(ready)
    if request["traced"]:
        _wait_for_tracer()
    if request["uid"]:
        os.setgroups([])
        os.setresgid(request["uid"], request["uid"], request["uid"])
        os.setresuid(request["uid"], request["uid"], request["uid"])


def _wait_for_tracer() -> None:
    """Without opening a file each time: calls count from the moment at which strace is there."""
    descriptor = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    traced = False
    while not traced:
        time.sleep(0.001)
        with suppress(OSError):  # the first that strace lets fail
            traced = b"TracerPid:\t0\n" not in os.pread(descriptor, 4096, 0)
    os.close(descriptor)
    time.sleep(0.005)


if __name__ == "__main__":
    main()
