"""A TCP proxy that cuts connections when it is told to, or after so many bytes, and can hold what passes through it."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

CHUNK_BYTES = 65536


def _unlimited() -> None:
    """No connection is cut by itself."""


class CuttingProxy:
    """Passes bytes on between its port and the target, until a connection is cut.

    `allowance` says of each new connection how many bytes it may carry, both ways together, before it is cut in their
    middle; None is any number. `flows` is cleared to hold all that is on its way, and set to let it go on.
    """

    def __init__(
        self, target_port: int, allowance: Callable[[], int | None] = _unlimited, *, host: str = "127.0.0.1"
    ) -> None:
        self.target = ("127.0.0.1", target_port)
        self.listener = socket.create_server((host, 0))
        self.port = int(self.listener.getsockname()[1])
        self.allowance = allowance
        self.flows = threading.Event()
        self.flows.set()
        self.lock = threading.Lock()
        self.open: set[socket.socket] = set()
        self.cuts = 0

    def serve(self) -> None:
        """Accept until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self.target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self.lock:
                self.open |= {client, server}
            left = Allowance(self.allowance())
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink, left), daemon=True).start()

    def cut(self) -> None:
        """Break every connection in its middle."""
        with self.lock:
            self.cuts += bool(self.open)
            for one in self.open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self.open.clear()

    def _pump(self, source: socket.socket, sink: socket.socket, left: "Allowance") -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self.flows.wait()
                granted = left.take(len(data))
                sink.sendall(data[:granted])
                if granted < len(data):
                    with self.lock:
                        self.cuts += 1
                    break
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self.lock:
            self.open.discard(source)
        source.close()


class Allowance:
    """How many bytes a connection may still carry."""

    def __init__(self, count: int | None) -> None:
        self.count = count
        self.lock = threading.Lock()

    def take(self, wanted: int) -> int:
        """As many of them as there are left."""
        with self.lock:
            if self.count is None:
                return wanted
            granted = min(wanted, self.count)
            self.count -= granted
            return granted


@contextmanager
def cutting_proxy(
    target_port: int, allowance: Callable[[], int | None] = _unlimited, *, host: str = "127.0.0.1"
) -> Iterator[CuttingProxy]:
    """A running proxy."""
    proxy = CuttingProxy(target_port, allowance, host=host)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        with suppress(OSError):
            proxy.listener.shutdown(socket.SHUT_RDWR)
        proxy.listener.close()
        proxy.flows.set()
        proxy.cut()
        thread.join(timeout=10)
