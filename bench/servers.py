"""docker-registry on a port that the kernel picks, dockerd on a socket, for as long as a block lasts."""

import asyncio
import contextlib
import json
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from links import Machine
from shell import Shell, wait_for_line

PROGRAM: Final = "docker-registry"
_LISTENING: Final = rb"listening on ([0-9.]+:\d+)"
# One such line, at this level, for each request.
_REQUEST: Final = b'msg="response completed'


@dataclass(frozen=True, slots=True)
class Server:
    """Where a program of ours listens, and what it has told so far."""

    host: str
    pid: int
    log: Path

    def requests(self) -> int:
        return self.log.read_bytes().count(_REQUEST)


@contextlib.contextmanager
def served_registry(shell: Shell, storage: Path, machine: Machine | None = None) -> Iterator[Server]:
    """The port comes from the log of our own child, so it is ours."""
    config = shell.home / f"{storage.name}.yml"
    log = shell.home / f"{storage.name}.log"
    config.write_text(json.dumps(registry_config(storage, machine.address if machine else "127.0.0.1")))
    argv = [PROGRAM, "serve", f"{config}"]
    with shell.started(machine.command(*argv) if machine else argv, log=log) as process:
        yield Server(wait_for_line(process, log, _LISTENING), process.pid, log)


@contextlib.contextmanager
def served_docker(shell: Shell, data: Path) -> Iterator[Server]:
    """A daemon without a network of its own. `host` is its socket, whose path may have 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="dockerd-", ignore_cleanup_errors=True) as text:
        place, log = Path(text), shell.home / "dockerd.log"
        (place / "daemon.json").write_text("{}")
        # fmt: off
        argv = [
            "dockerd", "--bridge=none", "--iptables=false", f"--data-root={data}", f"--exec-root={place}/exec",
            f"--host=unix://{place}/docker.sock", f"--pidfile={place}/docker.pid",
            f"--config-file={place}/daemon.json",
        ]
        # fmt: on
        with shell.started(argv, log=log) as process:
            wait_for_line(process, log, rb"(API listen on)")
            yield Server(f"unix://{place}/docker.sock", process.pid, log)


def registry_config(storage: Path, address: str = "127.0.0.1") -> dict[str, object]:
    """No cache key: the registry's memory would lie when a storage is emptied between runs."""
    return {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": f"{storage}"},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": f"{address}:0"},
    }


@contextlib.contextmanager
def delayed_registry(host: str, seconds: float) -> Iterator[str]:
    """Yields HOST:PORT of the same registry at a distance: whatever is sent to it arrives so many seconds later."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(_serve_delayed(host, seconds), loop).result()
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        asyncio.run_coroutine_threadsafe(_stop_all(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _serve_delayed(host: str, seconds: float) -> asyncio.Server:
    name, _, port = host.rpartition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(name, int(port))
        with contextlib.suppress(OSError):
            await asyncio.gather(
                _pass_on(reader, upstream_writer, seconds),
                _pass_on(upstream_reader, writer, 0),
            )

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    try:
        while data := await reader.read(65536):
            await asyncio.sleep(seconds)
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def _stop_all(server: asyncio.Server) -> None:
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
