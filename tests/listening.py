"""A server on loopback for tests that speak to a socket themselves."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """`serve` gets each connection, in a thread of its own; yields HOST:PORT.

    Nobody waits in accept(2) when the block has ended. Who did would go on after a signal, as seteuid(2) sends to all
    threads, and wait at whatever has the same file descriptor by then: the server of a later test.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _address = server.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
