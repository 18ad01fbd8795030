"""How the client talks over HTTP: what is asked again, when, and which error tells that it was in vain."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx2

from service.client.errors import REFUSALS, ApiError, BadToken, ServerUnreachable
from workers.protocol.addresses import mounts_for

if TYPE_CHECKING:
    from pydantic import BaseModel

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
LONGEST_OBEYED_SECONDS = 60.0  # a Retry-After beyond it is the caller's to wait for
STREAM_SILENCE_SECONDS = 60.0  # the server's heartbeat comes every 15 s
PATIENCE = 3  # times as many tries for what goes on for hours: the restart of a server takes seconds
LAST_LOOK_SECONDS = 0.5  # what a call is given that begins when its time is up
SAFE_METHODS = frozenset({"GET", "HEAD"})
ViewT = TypeVar("ViewT", bound="BaseModel")


class Transport:
    """One server's connections; may be used from several threads.

    A call is repeated where that cannot do harm: it only reads, or bears an Idempotency-Key, or says that it may be
    (`again`), or the server has certainly not begun with it (429, no connection). Raises an ApiError where the server
    refuses, ServerUnreachable where it stays away; BadToken where the token can be none.
    """

    def __init__(
        self, base_url: str, token: str | None, *, timeout_seconds: float, tries: int, random: Random | None = None
    ) -> None:
        """`random` draws the jitter of the retries; a seeded one makes the waits repeatable."""
        if token is not None and not (token.isascii() and token.isprintable()):
            raise BadToken
        self.base_url = base_url
        self.tries = tries
        self.random = random or Random()
        self.http = httpx2.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=timeout_seconds,
            mounts=mounts_for(base_url),
        )

    def send(
        self,
        method: str,
        place: str,
        *,
        again: bool = False,
        patience: int = 1,
        until: float | None = None,
        ok: Sequence[int] = (),
        **request: Any,
    ) -> httpx2.Response:
        """One call, with the repetitions that it needs and bears; with patience, so many times as many.

        None of them goes on after the time `until`, as `time.monotonic` tells it.
        """
        repeatable = again or method in SAFE_METHODS or "Idempotency-Key" in request.get("headers", {})
        pauses = Backoff(self.tries * patience, self.random, until=until)
        while True:
            try:
                answer = self.http.request(method, place, timeout=self._timeout(until), **request)
            except httpx2.TransportError as error:
                unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
                if not (repeatable or unsent) or not pauses.another():
                    raise self.unreachable(error) from error
                continue
            if answer.is_success or answer.status_code in ok:
                return answer
            untouched = answer.status_code == 429
            if not (untouched or (answer.status_code == 503 and repeatable)) or not pauses.another(_wish(answer)):
                raise refusal(answer)

    def get(
        self,
        view: type[ViewT],
        place: str,
        params: Mapping[str, Any] | None = None,
        *,
        patience: int = 1,
        until: float | None = None,
    ) -> ViewT:
        """A GET, and its answer as it is typed."""
        return view.model_validate_json(self.send("GET", place, params=params, patience=patience, until=until).content)

    def post(self, view: type[ViewT], place: str, *, again: bool = False, **request: Any) -> ViewT:
        """A POST, and its answer as it is typed."""
        return view.model_validate_json(self.send("POST", place, again=again, **request).content)

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def follow(self, place: str, *, params: Mapping[str, Any]) -> Iterator[httpx2.ServerSentEvent]:
        """The events of a stream up to its `end`, over as many connections as it takes.

        Whatever comes whole restores the tries, a heartbeat too: a quiet stream may be cut for hours. A new connection
        asks for what follows the last id, no sooner than the server's `retry` says.
        """
        pauses, last_id, retry = Backoff(self.tries * PATIENCE, self.random), "", None
        while True:
            least = retry
            try:
                for event in self._stream(place, params=params, last_id=last_id, renew=pauses.renew):
                    if event.event == "end":
                        return
                    last_id = event.id or last_id
                    if event.retry is not None:
                        least = retry = min(event.retry / 1000, LONGEST_OBEYED_SECONDS)
                        if not event.data:  # by the standard no event at all; httpx2 makes an empty one of it
                            continue
                    pauses.renew()
                    yield event
                cause: Exception = httpx2.RemoteProtocolError("the stream ends again and again")
            except httpx2.TransportError as error:
                cause = error
            except ApiError as error:
                if error.status not in (429, 503):
                    raise
                cause, least = error, retry if error.retry_after is None else error.retry_after
            if not pauses.another(least):
                raise self.unreachable(cause) from cause

    def _stream(
        self, place: str, *, params: Mapping[str, Any], last_id: str, renew: Callable[[], None]
    ) -> Iterator[httpx2.ServerSentEvent]:
        headers = {"Accept-Encoding": "identity"} | ({"Last-Event-ID": last_id} if last_id else {})
        silence = httpx2.Timeout(self.http.timeout.connect, read=STREAM_SILENCE_SECONDS)
        with self.http.sse(place, params=params, headers=headers, timeout=silence) as source:
            if not source.response.is_success:
                source.response.read()
                raise refusal(source.response)
            assert isinstance(source.response.stream, httpx2.SyncByteStream)
            source.response.stream = _Heartbeats(source.response.stream, renew)
            yield from source

    def _timeout(self, until: float | None) -> httpx2.Timeout:
        usual = self.http.timeout
        if until is None:
            return usual
        left = max(LAST_LOOK_SECONDS, until - time.monotonic())
        return httpx2.Timeout(min(left, usual.read or left))

    def unreachable(self, error: Exception) -> ServerUnreachable:
        """The error that says that the server stays away, and why."""
        url = self.base_url
        return ServerUnreachable(
            f"{url} does not answer ({error}); start the local stack with `cbam up`, or set CBAM_URL"
        )


class Backoff:
    """A limited number of waits with exponential backoff and equal jitter; none goes beyond `until`.

    Each interval is twice the one before. A wait is drawn from the upper half of its interval, so that clients which
    one outage cut off at the same moment do not return at the same moment; the lower half is kept, as a restart of the
    server must be outlasted however the draws fall. A Retry-After is the least that is waited: the draw comes on top.
    """

    def __init__(self, tries: int, random: Random, *, until: float | None = None) -> None:
        self._tries = tries
        self._random = random
        self._until = until
        self.renew()

    def renew(self) -> None:
        """Restore all tries, beginning with the shortest interval."""
        self._left, self._interval = self._tries - 1, FIRST_PAUSE_SECONDS

    def another(self, retry_after: float | None = None) -> bool:
        """Wait and return True, or return False where no tries or no time are left."""
        if self._left <= 0 or (retry_after is not None and retry_after > LONGEST_OBEYED_SECONDS):
            return False
        half = self._interval / 2
        seconds = (half if retry_after is None else retry_after) + self._random.uniform(0.0, half)
        left = seconds if self._until is None else self._until - time.monotonic()
        time.sleep(max(0.0, min(seconds, left)))
        if seconds > left:
            return False
        self._left, self._interval = self._left - 1, min(2 * self._interval, LONGEST_PAUSE_SECONDS)
        return True


class _Heartbeats(httpx2.SyncByteStream):
    """The bytes of a stream of events. Each comment among them is the server's heartbeat; httpx2 passes none on."""

    def __init__(self, stream: httpx2.SyncByteStream, beat: Callable[[], None]) -> None:
        self.stream = stream
        self.beat = beat

    def __iter__(self) -> Iterator[bytes]:
        line_begins = True
        for chunk in self.stream:
            if (line_begins and chunk.startswith(b":")) or b"\n:" in chunk:
                self.beat()
            line_begins = chunk.endswith(b"\n") or (line_begins and not chunk)
            yield chunk

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()


def path(root: str, *parts: str) -> str:
    """A path in which no part can leave its place."""
    return "/".join((root, *(quote(part, safe="") for part in parts)))


def refusal(answer: httpx2.Response) -> ApiError:
    """The problem in the answer, or what can be said of an answer that holds none (a proxy's, another server's)."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": f"{answer.request.url} answers {answer.status_code} {answer.reason_phrase}"}
    return REFUSALS.get(answer.status_code, ApiError)(
        answer.status_code, problem, retry_after=_wish(answer), request_id=answer.headers.get("X-Request-ID")
    )


def _wish(answer: httpx2.Response) -> float | None:
    """How many seconds the server wishes to be left alone (RFC 9110, 10.2.3: seconds, or a date)."""
    value = answer.headers.get("Retry-After", "")
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
