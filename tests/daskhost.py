"""Dask with its modules loaded, forked for each scheduler and worker: real processes of a cluster, without the seconds
that their imports take.

Reads a line of JSON for each process to start, and answers with its number, and a scheduler's address. Ends when its
input does, and all that it has started with it.
"""

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
import tempfile
from typing import Any

import dask
from distributed import Scheduler, Worker

import regwrap.cli.worker

_PR_SET_PDEATHSIG = 1
assert regwrap.cli.worker.__name__  # loaded before anything is forked


def main() -> None:
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while line := sys.stdin.readline():
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _become(json.loads(line), writing)
        os.close(writing)
        with os.fdopen(reading) as file:
            answer = {"pid": pid, "address": file.readline().strip()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _become(request: dict[str, Any], writing: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        dask.config.refresh()
        dask.config.set({"distributed.scheduler.worker-ttl": request["ttl"]})
        tempfile.tempdir = None
        nothing = os.open(os.devnull, os.O_RDWR)
        for number, log in (
            (0, nothing),
            (1, nothing),
            (2, os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)),
        ):
            os.dup2(log, number)
        asyncio.run(_serve(request, writing))
        code = 0
    finally:
        os._exit(code)


async def _serve(request: dict[str, Any], writing: int) -> None:
    server: Scheduler | Worker
    if not request["scheduler"]:
        server = await Scheduler(host="127.0.0.1", port=request["port"], protocol=request["protocol"], dashboard=False)
    else:
        server = await Worker(
            request["scheduler"],
            host="127.0.0.1",
            name=request["name"],
            nthreads=2,
            local_directory=request["env"]["TMPDIR"],
            memory_limit=0,
            dashboard=False,
        )
    os.write(writing, f"{server.address}\n".encode())
    os.close(writing)
    await server.finished()


if __name__ == "__main__":
    main()
