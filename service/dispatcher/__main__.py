"""`python -m service.dispatcher` runs the dispatcher until SIGTERM."""

import gc
import logging
import os
import signal
import threading

from service import log_format
from service.database.engine import Database
from service.dispatcher.dispatcher import Dispatcher
from service.settings import Settings, unknown_variables
from service.webhooks.sender import WebhookSender

log = logging.getLogger(__name__)


def main() -> None:
    """Run a dispatcher until SIGTERM."""
    os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"  # it would take SIGTERM from us, and with it the lease's end
    from service.cluster.ray.cluster import RayCluster

    settings = Settings()
    log_format.configure("dispatcher", form=settings.log_format, level=settings.log_level)
    for line in unknown_variables():
        log.warning(line)
    database = Database(settings.database_url)
    database.migrate()
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    webhook_sender = WebhookSender(database, settings)
    webhook_sender.start()
    dispatcher = Dispatcher(database, RayCluster(settings), settings)
    gc.freeze()  # what is loaded by now stays: a tick over a thousand takes a fifth longer where it is looked through
    dispatcher.run(stop)
    webhook_sender.close()
    database.close()


if __name__ == "__main__":
    main()
