"""skopeo as a server of blobs: one process reads many images of a registry, and gives their bytes through pipes.

`skopeo experimental-image-proxy` speaks JSON in the packets of a socket and passes a pipe for each blob (protocol 0.2,
containers/skopeo cmd/skopeo/proxy.go). Against one `skopeo copy` per image it saves the start of a program, an fsync
for each blob, and reading back what was written, because the bytes come by here and can be hashed on their way.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import select
import socket
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import ToolError
from regwrap.tools.answers import SKOPEO_HAS_NO_PROXY
from regwrap.tools.runner import Server, last_lines
from regwrap.tools.skopeo import Remote, Skopeo, failure, fatal_text, tell_trials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from regwrap.core.location import Registry
    from regwrap.core.model import Descriptor

AT_ONCE: Final = 6  # as many blobs as skopeo copies at the same time
_PROTOCOL: Final = "0.2."
_PACKET_BYTES: Final = 64 * 1024
_PIPE_BYTES: Final = 1024 * 1024
_PIECE_BYTES: Final = 256 * 1024
_LOOK_SECONDS: Final = 0.2
_END_SECONDS: Final = 2.0
_OTHER_WAY: Final = "use --engine copy, which does not need it"


@dataclass(slots=True, kw_only=True)
class ImageProxy:
    """One running proxy, for one thread at a time. After any error it is of no more use."""

    registry: Registry
    channel: socket.socket
    server: Server
    skopeo: Skopeo
    _open: tuple[str, object] | None = None
    _source: Remote | None = None
    _deadline: float = math.inf

    def begin(self) -> None:
        """Agree on the protocol. Raises ToolError where this skopeo speaks none that is known here."""
        version = self._ask("Initialize").value
        if not (isinstance(version, str) and version.startswith(_PROTOCOL)):
            raise ToolError(f"skopeo's image proxy speaks protocol {version}", hint=_OTHER_WAY)

    def blobs(self, source: Remote, wanted: Sequence[Descriptor]) -> Iterator[tuple[Descriptor, memoryview]]:
        """Pieces of the wanted blobs as they come, at most AT_ONCE blobs under way; of none more than its size. A piece
        is only good until the next.

        The bytes are not to be trusted. `source` is a manifest of the repository that has the blobs. Raises ToolError,
        also when they are not all there after `timeouts.copy` seconds.
        """
        self._source, self._deadline = source, time.monotonic() + self.skopeo.timeouts.copy
        image = self._opened(source)
        for start in range(0, len(wanted), AT_ONCE):
            yield from self._streams(image, wanted[start : start + AT_ONCE])

    def _opened(self, source: Remote) -> object:
        """The image in whose repository the blobs are looked for: opening it costs requests, so the last is kept."""
        if self._open is None or self._open[0] != source.repository:
            if self._open is not None:
                self._ask("CloseImage", self._open[1])
            self._open = None
            self._open = (source.repository, self._ask("OpenImage", source.url).value)
        return self._open[1]

    def _streams(self, image: object, wanted: Sequence[Descriptor]) -> Iterator[tuple[Descriptor, memoryview]]:
        for blob in wanted:
            self._send("GetBlob", image, str(blob.digest), blob.size)
        with ExitStack() as stack:
            replies = [self._reply(stack) for _blob in wanted]
            for reply in replies:
                # The proxy closes its end of a pipe only when asked to finish, and then answers when all was read.
                self._send("FinishPipe", reply.pipe)
            pipes = {reply.descriptor: blob for reply, blob in zip(replies, wanted, strict=True)}
            yield from self._read(pipes)
            for _blob in wanted:
                self._reply(stack)

    def _read(self, pipes: dict[int, Descriptor]) -> Iterator[tuple[Descriptor, memoryview]]:
        buffer = memoryview(bytearray(_PIECE_BYTES))  # a fresh one for each piece costs more than reading it
        poll, left = select.poll(), {descriptor: blob.size for descriptor, blob in pipes.items()}
        for descriptor in pipes:
            with suppress(OSError):  # a user's quota of pipe memory
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            poll.register(descriptor, select.POLLIN)
        while left:
            for descriptor in self._wait(poll):
                count = os.readv(descriptor, [buffer])
                left[descriptor] -= count
                if left[descriptor] < 0:
                    raise ToolError(f"{self.registry.host} sends more than the {pipes[descriptor].size} bytes"
                                    f" that blob {pipes[descriptor].digest.short} has")  # fmt: skip
                if count:
                    yield pipes[descriptor], buffer[:count]
                else:
                    poll.unregister(descriptor)
                    del left[descriptor]

    def _ask(self, method: str, *args: object) -> _Reply:
        self._send(method, *args)
        with ExitStack() as stack:
            return self._reply(stack)

    def _send(self, method: str, *args: object) -> None:
        try:
            self.channel.send(json.dumps({"method": method, "args": args}).encode())
        except OSError as error:
            raise self._ended() from error

    def _reply(self, stack: ExitStack) -> _Reply:
        """The next answer; a pipe that comes with it is closed by `stack`."""
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        self._wait(poll)
        try:
            packet, descriptors, _flags, _address = socket.recv_fds(self.channel, _PACKET_BYTES, 1)
        except OSError as error:
            raise self._ended() from error
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        if not packet:
            raise self._ended()
        document = json.loads(packet)
        if not document["success"]:
            source = self._source or Remote(registry=self.registry, repository="", reference="")
            raise failure(f"could not read {source.shown}", document["error"], (source,), self.skopeo.limiters)
        if document["pipeid"] and not descriptors:  # the kernel drops what has no number here (unix(7))
            raise ToolError("too many open files", hint="raise ulimit -n, or lower --jobs", transient=True)
        return _Reply(document["value"], document["pipeid"], descriptors[0] if descriptors else -1)

    def _wait(self, poll: select.poll) -> list[int]:
        """Descriptors that have something. Raises ToolError when a time limit is over, or the run is stopped."""
        timeouts, stalled = self.skopeo.timeouts, time.monotonic() + self.skopeo.timeouts.stall
        while not (ready := poll.poll(_LOOK_SECONDS * 1000)):
            self._go_on()
            if time.monotonic() >= stalled:
                raise self._late(f"made no progress for {timeouts.stall:g} s")
        self._go_on()
        if time.monotonic() >= self._deadline:
            raise self._late(f"was not done after {timeouts.copy:g} s")
        return [descriptor for descriptor, _event in ready]

    def _go_on(self) -> None:
        if self.skopeo.runner.stopping.is_set():
            raise ToolError("skopeo was stopped: regwrap is stopping")

    def _late(self, what: str) -> ToolError:
        return ToolError(f"skopeo {what} and was stopped", transient=True, host=self.registry.host)

    def _ended(self) -> ToolError:
        how = self.server.ending(_END_SECONDS) or "it closed its socket"
        said = self.server.log.read_text(encoding="utf-8", errors="replace")
        unknown = SKOPEO_HAS_NO_PROXY in said
        return ToolError(
            f"skopeo's image proxy does not answer: {how}",
            detail=fatal_text(said) or last_lines(said),
            hint=_OTHER_WAY if unknown else "",
            transient=not unknown,
        )


@dataclass(frozen=True, slots=True)
class _Reply:
    value: object
    pipe: int
    descriptor: int


@dataclass(slots=True, kw_only=True)
class ImageProxies:
    """The proxies of one run: started when all others are busy, kept until the run's end, thrown away after an error.

    `repositories` of each host that may be asked for: skopeo's configuration names each one. They die with the threads
    that started them, so use them from threads that stay for the whole run.
    """

    skopeo: Skopeo
    repositories: Mapping[str, Sequence[str]]
    _idle: dict[str, list[tuple[ImageProxy, ExitStack]]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def turn(self, source: Remote, weight: int) -> Iterator[ImageProxy]:
        """A proxy for the block, which asks `source`'s host for up to `weight` blobs at the same time. What the block
        raises is what the host's limiter hears."""
        limiters, asked = self.skopeo.limiters, ((source.registry, source.repository),)
        with limiters.trials(asked) as trials, limiters.slots((source.registry,), min(weight, AT_ONCE)) as started:
            proxy, stack = self._taken(source.registry)
            try:
                yield proxy
            except ToolError as error:
                stack.close()
                tell_trials(trials, error.detail or error.message)
                self.skopeo.tell((source,), error.detail or error.message, started)
                raise
            except BaseException:
                stack.close()
                raise
            tell_trials(trials, "")
            self.skopeo.tell((source,), "", started)
            with self._lock:
                self._idle.setdefault(source.registry.host, []).append((proxy, stack))

    def _taken(self, registry: Registry) -> tuple[ImageProxy, ExitStack]:
        with self._lock:
            idle = self._idle.get(registry.host)
            if idle:
                return idle.pop()
        return self._started(registry)

    def _started(self, registry: Registry) -> tuple[ImageProxy, ExitStack]:
        with ExitStack() as stack:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(closing(ours))
            with closing(theirs):
                names = self.repositories[registry.host]
                starting = self.skopeo.image_proxy(registry, names, theirs.fileno())
                server = stack.enter_context(starting)
            proxy = ImageProxy(registry=registry, channel=ours, server=server, skopeo=self.skopeo)
            proxy.begin()
            return proxy, stack.pop_all()

    def close(self) -> None:
        """End those that are idle. Nobody may be using one."""
        with self._lock:
            stacks = [stack for idle in self._idle.values() for _proxy, stack in idle]
            self._idle.clear()
        for stack in stacks:
            stack.close()
