"""Runs the API: `python -m service.serve`. At SIGTERM it finishes what it answers, ends what it streams, and leaves."""

import logging
import signal
import sys
import threading
from types import FrameType

import uvicorn

from service import log_lines
from service.app import create_app, prepare
from service.errors import ServiceError
from service.settings import Settings

log = logging.getLogger(__name__)
DRAIN_SECONDS = 8  # for requests in hand; streams end by themselves as soon as the server closes


class Server(uvicorn.Server):
    """A server that tells its app at the first signal that it is closing: uvicorn tells it only once all have left."""

    def __init__(self, config: uvicorn.Config, closing: threading.Event) -> None:
        super().__init__(config)
        self.closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Have the streams end; then close as uvicorn does."""
        self.closing.set()
        super().handle_exit(sig, frame)


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    settings = Settings()
    log_lines.configure("api", form=settings.log_format, level=settings.log_level)
    app = create_app(settings)
    try:
        prepare(app)
    except ServiceError as error:  # said in one line; within uvicorn it would be a traceback
        log.error("%s: %s", type(error).__name__, error)
        sys.exit(1)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # service/request_log.py writes it
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    for signum in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises its signal again at the end: the end was a good one
        signal.signal(signum, lambda *_: None)
    Server(config, app.state.closing).run()


if __name__ == "__main__":
    main()
