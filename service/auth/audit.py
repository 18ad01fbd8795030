"""Who did what, when, from where. Written by a thread in batches, so that no request waits for it.

A process that is killed takes the last moments' audit events with it; who moved an experiment is never lost, for that
is in its events, written with the move itself.
"""

import logging
import threading
from collections import deque
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from service.database.engine import Database
from service.database.models.auth import AuditEvent, Token
from service.domain.values import utc_now

log = logging.getLogger(__name__)
BATCH_SECONDS = 0.2
RETRY_SECONDS = 2.0
PRUNE_SECONDS = 3600.0
MOST_WAITING = 10_000  # while the database is away; then the oldest are dropped
USE_SECONDS = 60.0  # a token's last use is written no more often


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that was done, or tried."""

    at: datetime
    actor: str | None
    token_id: str | None
    action: str
    target: str
    status: int
    address: str
    request_id: str | None


class AuditLog:
    """Collects entries and the use of tokens, and writes them. `start` and `close` belong to the server's life."""

    def __init__(self, database: Database, *, keep_days: int) -> None:
        self.database = database
        self.keep = timedelta(days=keep_days)
        self._entries: deque[Entry] = deque(maxlen=MOST_WAITING)
        self._uses: dict[str, datetime] = {}
        self._marked: dict[str, datetime] = {}
        self._lock = threading.Lock()
        self._news, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, entry: Entry) -> None:
        """Have an entry written. Returns at once."""
        with self._lock:
            self._entries.append(entry)
        self._news.set()

    def note_use(self, token_id: str) -> None:
        """Have the use of a token written, unless that was done within the last minute. Returns at once."""
        now = utc_now()
        with self._lock:
            marked = self._marked.get(token_id)
            if marked is not None and (now - marked).total_seconds() < USE_SECONDS:
                return
            self._marked[token_id] = self._uses[token_id] = now
        self._news.set()

    def page(self, *, actor: str | None, before: int | None, limit: int) -> list[AuditEvent]:
        """The newest entries, of one actor or of all, from before a `seq` on."""
        query = select(AuditEvent).order_by(AuditEvent.seq.desc()).limit(limit)
        if actor is not None:
            query = query.where(AuditEvent.actor == actor)
        if before is not None:
            query = query.where(AuditEvent.seq < before)
        with self.database.reading() as session:
            return list(session.scalars(query))

    def start(self) -> None:
        """Begin to write."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left, and end."""
        self._stop.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        prune_at = utc_now()
        while not self._stop.is_set():
            if utc_now() >= prune_at and self._prune():
                prune_at = utc_now() + timedelta(seconds=PRUNE_SECONDS)
            if self._news.wait(PRUNE_SECONDS):
                self._stop.wait(BATCH_SECONDS)
                self._news.clear()
                if not self._write():
                    self._stop.wait(RETRY_SECONDS)
                    self._news.set()
        self._write()

    def _write(self) -> bool:
        """Write what has come, in one transaction. Returns whether the database took it; else it is kept."""
        with self._lock:
            entries, uses = list(self._entries), self._uses
            self._entries.clear()
            self._uses = {}
        if not entries and not uses:
            return True
        try:
            with self.database.writing() as session:
                if entries:
                    session.execute(insert(AuditEvent), [asdict(entry) for entry in entries])
                for token_id, at in uses.items():
                    session.execute(update(Token).where(Token.id == token_id).values(last_used_at=at))
        except OperationalError as error:
            log.warning("audit events wait for the database: %s", error.orig)
            with self._lock:
                self._entries.extendleft(reversed(entries[: MOST_WAITING - len(self._entries)]))
                self._uses = uses | self._uses
            return False
        except SQLAlchemyError:  # it would be refused again and again, and hold up the rest
            log.exception("%s audit events cannot be written", len(entries))
        return True

    def _prune(self) -> bool:
        try:
            with self.database.writing() as session:
                session.execute(delete(AuditEvent).where(AuditEvent.at < utc_now() - self.keep))
        except SQLAlchemyError as error:  # whatever it is: those that are new must still be written
            log.warning("old audit events cannot be deleted: %s", error)
            return False
        return True
