"""Sends what is in the outbox. A thread beside the dispatcher, which it never holds up: they share only the database.

Any number of senders may work at once: whoever claims a message has it for a minute. A message arrives at least once;
its `webhook-id` stays the same, so that a receiver can tell a second copy. Messages to one webhook go one at a time.
Owners take turns: who has many slow receivers holds up their own messages alone.
"""

import itertools
import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from sqlalchemy import bindparam, delete, func, not_, select, update
from sqlalchemy.exc import SQLAlchemyError

from service.database.engine import Database
from service.database.models.base import UtcDateTime
from service.database.models.webhooks import Webhook, WebhookDelivery
from service.database.outbox import MAY_BE_TOLD
from service.domain.values import utc_now
from service.errors import AddressRefused, DeliveryFailed
from service.settings import Settings
from service.webhooks.safe_http import post
from service.webhooks.signing import signed_headers

log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
CLAIM_SECONDS = 60.0  # longer than a try can take; whoever was killed in one loses it after that
PAUSES_SECONDS = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 21600.0, 43200.0)  # a day altogether
KEEP = timedelta(days=30)
PRUNE_LOOKS = 3600
AT_ONCE = 8
OF_ONE_OWNER = 2
TURN_SECONDS = 1.0  # after which a webhook with more to be told makes room
GONE = 410

Send = Callable[..., int]
_DUE = (WebhookDelivery.state == "pending", WebhookDelivery.next_at <= bindparam("at", type_=UtcDateTime()))


class WebhookSender:
    """Delivers messages until it is closed."""

    def __init__(self, database: Database, settings: Settings, *, send: Send = post) -> None:
        self.database = database
        self.allow_private = settings.webhook_allow_private
        self.send = send
        self.pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhooks")
        self.busy: dict[str, str] = {}  # webhooks that are being told something, with their owners
        self.served: dict[str, int] = {}  # owners, with the number of the turn that was theirs last
        self.turns = itertools.count(1)
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.wake = threading.Event()  # there is something to look at before the time
        self.thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def close(self) -> None:
        """End after the tries in hand."""
        self.stop.set()
        self.wake.set()
        self.thread.join()
        self.pool.shutdown(cancel_futures=True)

    def _run(self) -> None:
        looks = 0
        while not self.stop.is_set():
            try:
                self._look()
                if looks % PRUNE_LOOKS == 0:
                    self._prune()
            except SQLAlchemyError as error:
                log.warning("webhooks wait for the database: %s", error)
            except Exception:
                log.exception("webhooks cannot be looked at")
            looks += 1
            self.wake.wait(LOOK_SECONDS)
            self.wake.clear()

    def _look(self) -> None:
        """Give threads that are free to webhooks that something is due for: first to whose turn is longest ago."""
        self._end_what_nobody_may_be_told()
        query = (
            select(Webhook.id, Webhook.owner)
            .join(WebhookDelivery, WebhookDelivery.webhook_id == Webhook.id)
            .where(*_DUE, Webhook.enabled, MAY_BE_TOLD)
            .group_by(Webhook.id, Webhook.owner)
            .order_by(func.min(WebhookDelivery.next_at))
        )
        with self.database.reading() as session:
            due = [(webhook_id, owner) for webhook_id, owner in session.execute(query, {"at": utc_now()})]
        for webhook_id in self._chosen(due):
            self.pool.submit(self._serve, webhook_id)

    def _chosen(self, due: Sequence[tuple[str, str]]) -> list[str]:
        """The webhooks that get a thread now; from here on they count as busy."""
        chosen: list[str] = []
        with self.lock:
            while len(self.busy) < AT_ONCE:
                held = Counter(self.busy.values())
                waiting = [
                    (self.served.get(owner, 0), place, webhook_id, owner)
                    for place, (webhook_id, owner) in enumerate(due)
                    if webhook_id not in self.busy and held[owner] < OF_ONE_OWNER
                ]
                if not waiting:
                    break
                *_, webhook_id, owner = min(waiting)
                self.busy[webhook_id] = owner
                self.served[owner] = next(self.turns)
                chosen.append(webhook_id)
        return chosen

    def _end_what_nobody_may_be_told(self) -> None:
        """An owner whose tokens are revoked, or have expired, gets nothing more, whenever it was written down."""
        now = utc_now()
        query = (
            select(WebhookDelivery.id)
            .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
            .where(*_DUE, not_(MAY_BE_TOLD))
            .limit(1000)
        )
        with self.database.reading() as session:
            found = list(session.scalars(query, {"at": now}))
        if found:
            ended = {"state": "failed", "ended_at": now, "error": "its owner has no token any more that is good"}
            with self.database.writing() as session:
                session.execute(update(WebhookDelivery).where(WebhookDelivery.id.in_(found)).values(**ended))

    def _serve(self, webhook_id: str) -> None:
        """Send what is due for one webhook, the oldest first, until something fails or its turn is over."""
        ends_at = time.monotonic() + TURN_SECONDS
        try:
            while not self.stop.is_set() and (claimed := self._claim(webhook_id)) and self._try(*claimed):
                if time.monotonic() > ends_at:
                    break
        except SQLAlchemyError as error:
            log.warning("webhook %s waits for the database: %s", webhook_id, error)
            return  # until the next look at its time
        except Exception:
            log.exception("webhook %s cannot be served", webhook_id)
            return
        finally:
            with self.lock:
                del self.busy[webhook_id]
        self.wake.set()  # another one may have waited for this thread

    def _claim(self, webhook_id: str) -> tuple[Webhook, WebhookDelivery] | None:
        now = utc_now()
        query = (
            select(Webhook, WebhookDelivery)
            .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
            .where(WebhookDelivery.webhook_id == webhook_id, Webhook.enabled, MAY_BE_TOLD, *_DUE)
            .order_by(WebhookDelivery.created_at, WebhookDelivery.id)
            .limit(1)
        )
        with self.database.writing() as session:
            locked = query.with_for_update(of=WebhookDelivery, skip_locked=True)
            found = session.execute(locked, {"at": now}).one_or_none()
            if found is None:
                return None
            webhook, message = found
            message.tries += 1
            message.next_at = now + timedelta(seconds=CLAIM_SECONDS)
        return webhook, message

    def _try(self, webhook: Webhook, message: WebhookDelivery) -> bool:
        """Send one message and write down how it went. Returns whether it arrived."""
        status: int | None = None
        error = ""
        body = json.dumps(message.payload, separators=(",", ":")).encode()
        headers = signed_headers(webhook.secret, message.id, int(utc_now().timestamp()), body)
        try:
            status = self.send(webhook.url, body, headers, allow_private=self.allow_private)
        except (AddressRefused, DeliveryFailed) as failure:
            error = str(failure)
        if status is not None and not 200 <= status < 300:
            error = f"the receiver answered {status}" + ("; redirects are not followed" if status < 400 else "")
        self._settle(message, status, error)
        return not error

    def _settle(self, message: WebhookDelivery, status: int | None, error: str) -> None:
        now = utc_now()
        values: dict[str, Any] = {"status": status, "error": error}
        if not error:
            values |= {"state": "delivered", "ended_at": now}
        elif status == GONE or message.tries > len(PAUSES_SECONDS):
            values |= {"state": "failed", "ended_at": now}
        else:
            pause = PAUSES_SECONDS[message.tries - 1] * random.uniform(0.9, 1.1)
            values |= {"next_at": now + timedelta(seconds=pause)}
        with self.database.writing() as session:
            session.execute(
                update(WebhookDelivery)
                .where(WebhookDelivery.id == message.id, WebhookDelivery.state == "pending")
                .values(**values)
            )
            if status == GONE:
                session.execute(update(Webhook).where(Webhook.id == message.webhook_id).values(enabled=False))
        if error:
            log.info("webhook %s: message %s, try %s: %s", message.webhook_id, message.id, message.tries, error)

    def _prune(self) -> None:
        with self.database.writing() as session:
            session.execute(delete(WebhookDelivery).where(WebhookDelivery.created_at < utc_now() - KEEP))
