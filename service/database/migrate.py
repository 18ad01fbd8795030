"""Bring the database to the newest schema and end (`python -m service.database.migrate`): a cluster's first container.

The API and the dispatcher do the same at their start, under the same lock; here it is done once, and seen to be done,
before either is started anew.
"""

import logging
import time

from sqlalchemy.exc import OperationalError

from service import log_format
from service.database.engine import Database
from service.settings import Settings

log = logging.getLogger("service.database.migrate")
PATIENCE_SECONDS = 60.0  # for a database that is just starting
PAUSE_SECONDS = 1.0


def migrate(database: Database, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Migrate; a database that does not answer is waited for. Raises OperationalError after that."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            database.migrate()
            return
        except OperationalError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("the database does not answer yet: %s", error.orig)
            time.sleep(PAUSE_SECONDS)


def main() -> None:
    """Migrate the database of the settings."""
    settings = Settings()
    log_format.configure("migrate", form=settings.log_format, level=settings.log_level)
    database = Database(settings.database_url)
    migrate(database)
    log.info("the database is at the newest schema")
    database.close()


if __name__ == "__main__":
    main()
