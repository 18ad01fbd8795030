"""Runs the API: `python -m service.api`. At SIGTERM it finishes what it answers, ends what it streams, and leaves."""

import asyncio
import threading
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.settings import Settings

DRAIN_SECONDS = 8  # for requests in hand; streams end by themselves as soon as the server closes


class PromptProtocol(H11Protocol):
    """HTTP for clients that say what they want, and read what they get; one that does not is hung up on.

    uvicorn waits for ever for a head once its first byte has come, and for ever for who does not read its answer, also
    where it has closed the connection; each such client costs an open file, and the answer's memory.
    """

    head_timer: asyncio.TimerHandle | None = None
    read_timer: asyncio.TimerHandle | None = None
    unread_bytes = 0  # of answers, at the last look
    read_at = 0.0  # when something of them was last seen to be read

    @property
    def slow_seconds(self) -> float:
        """How long a head may take, and how long a client may read nothing of its answer."""
        settings: Settings = self.config.app.state.settings  # type: ignore[union-attr]
        return settings.slow_client_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is awaited from here on."""
        super().connection_made(transport)
        self._watch()
        self._look_whether_it_reads()

    def data_received(self, data: bytes) -> None:
        """The next head is awaited from its first byte on."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """There is nothing to await."""
        super().connection_lost(exc)
        self._rest()
        if self.read_timer is not None:
            self.read_timer.cancel()

    def resume_writing(self) -> None:
        """The client has read a good part of its answer."""
        super().resume_writing()
        self.read_at = self.loop.time()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._rest()
        elif self.head_timer is None:
            self.head_timer = self.loop.call_later(self.slow_seconds, self.transport.close)

    def _look_whether_it_reads(self) -> None:
        now, unread = self.loop.time(), self.transport.get_write_buffer_size()
        if unread == 0 or unread < self.unread_bytes:
            self.read_at = now
        elif now - self.read_at >= self.slow_seconds:
            self.transport.abort()  # to close it would wait until all is read
            return
        self.unread_bytes = unread
        self.read_timer = self.loop.call_later(self.slow_seconds / 2, self._look_whether_it_reads)

    def _rest(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None


class Server(uvicorn.Server):
    """A server that tells its app at the first signal that it is closing: uvicorn tells it only once all have left."""

    def __init__(self, config: uvicorn.Config, closing: threading.Event) -> None:
        super().__init__(config)
        self.closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Have the streams end; then close as uvicorn does."""
        self.closing.set()
        super().handle_exit(sig, frame)
