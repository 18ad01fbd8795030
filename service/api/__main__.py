"""`python -m service.api` serves the REST interface until SIGTERM."""

import logging
import signal
import sys

import uvicorn

from service import log_format
from service.api.app import create_app, prepare
from service.api.server import DRAIN_SECONDS, PromptProtocol, Server
from service.errors import ServiceError
from service.settings import Settings, unknown_variables

log = logging.getLogger(__name__)


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    settings = Settings()
    log_format.configure("api", form=settings.log_format, level=settings.log_level)
    for line in unknown_variables():
        log.warning(line)
    app = create_app(settings)
    try:
        prepare(app)
    except ServiceError as error:  # said in one line; within uvicorn it would be a traceback
        log.error("%s: %s", type(error).__name__, error)
        sys.exit(1)
    config = uvicorn.Config(
        app,
        http=PromptProtocol,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # middleware/access_log.py writes it
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),  # uvicorn would believe whoever connects from loopback
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    for signum in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises its signal again at the end: the end was a good one
        signal.signal(signum, lambda *_: None)
    Server(config, app.state.closing).run()


if __name__ == "__main__":
    main()
