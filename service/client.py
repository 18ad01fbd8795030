"""The Python client: submit a spec, wait for its end, read its metrics.

>>> client = Client("http://127.0.0.1:8000")                            # doctest: +SKIP
>>> client.submit("spec.yaml").wait(progress=True).metrics["val/top1"]  # doctest: +SKIP
"""

import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from cbam_core.spec import ExperimentSpec, read_spec
from service.access_schemas import CallerView, NewToken, TokenList, TokenView
from service.errors import ApiError, ServerUnreachable
from service.handle import ExperimentHandle
from service.preview_views import PreviewView
from service.roles import Role
from service.schemas import (
    AttemptList,
    AttemptView,
    EventList,
    EventView,
    ExperimentPage,
    ExperimentView,
    Readiness,
    View,
)
from service.settings import Settings
from service.sse import Message, lines_of, messages
from service.stack_record import recorded_url
from service.states import State

Spec = ExperimentSpec | Mapping[str, Any] | str | Path
ViewT = TypeVar("ViewT", bound=View)
TRIES = 5
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
STREAM_SILENCE_SECONDS = 60.0  # the server's heartbeat comes every 15 s


class Client:
    """Talks to one server; may be used from several threads.

    Calls are repeated with back-off while the server is away or says 503. All of them may be: a submission carries an
    Idempotency-Key. Raises ApiError where the server refuses, ServerUnreachable where it stays away.
    """

    def __init__(
        self,
        base_url: str | None = None,
        token: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        tries: int = TRIES,
    ) -> None:
        """Without a URL: `CBAM_URL`, else the local stack's, else http://127.0.0.1:8000; the token: `CBAM_TOKEN`."""
        self.base_url = (base_url or os.environ.get("CBAM_URL") or recorded_url(Settings().home)).rstrip("/")
        token = token or os.environ.get("CBAM_TOKEN")
        self._tries = tries
        self._http = httpx.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=timeout_seconds,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(self, spec: Spec, *, idempotency_key: str | None = None) -> ExperimentHandle:
        """Submit a spec, a dict of its fields, or the path of a YAML file. The same key gives the same experiment."""
        key = idempotency_key or str(uuid.uuid4())
        answer = self._send("POST", "/v1/experiments", json=_body(spec), headers={"Idempotency-Key": key})
        return ExperimentHandle(self, ExperimentView.model_validate_json(answer.content))

    def preview(self, spec: Spec) -> PreviewView:
        """What would run; nothing is stored."""
        answer = self._send("POST", "/v1/experiments/preview", json=_body(spec))
        return PreviewView.model_validate_json(answer.content)

    def get(self, experiment_id: str) -> ExperimentHandle:
        """One experiment."""
        return ExperimentHandle(self, self.view(experiment_id))

    def view(self, experiment_id: str) -> ExperimentView:
        """One experiment as the server shows it now."""
        return self._get(ExperimentView, _path(experiment_id))

    def list(
        self,
        *,
        states: Sequence[State] = (),
        project: str | None = None,
        q: str | None = None,
        page_size: int = 50,
    ) -> Iterator[ExperimentView]:
        """All experiments that match, the newest first; pages are fetched as they are needed."""
        query: dict[str, Any] = {"state": [str(state) for state in states], "limit": page_size}
        query |= {name: value for name, value in (("project", project), ("q", q)) if value is not None}
        while True:
            page = self._get(ExperimentPage, "/v1/experiments", params=query)
            yield from page.items
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    def cancel(self, experiment_id: str) -> ExperimentView:
        """End it and free what it holds."""
        return self._act(experiment_id, "cancel")

    def pause(self, experiment_id: str) -> ExperimentView:
        """Write a checkpoint, free what it holds, wait."""
        return self._act(experiment_id, "pause")

    def resume(self, experiment_id: str) -> ExperimentView:
        """Queue a paused experiment again."""
        return self._act(experiment_id, "resume")

    def retry(self, experiment_id: str) -> ExperimentView:
        """Queue a failed or cancelled experiment once more; it goes on from its last checkpoint."""
        return self._act(experiment_id, "retry")

    def events(self, experiment_id: str) -> Sequence[EventView]:
        """Every change of state, oldest first."""
        return self._get(EventList, _path(experiment_id, "events")).items

    def attempts(self, experiment_id: str) -> Sequence[AttemptView]:
        """Every attempt, oldest first."""
        return self._get(AttemptList, _path(experiment_id, "attempts")).items

    def logs(self, experiment_id: str, *, rank: int = 0) -> str:
        """The whole log of one worker, as far as it is written."""
        text, offset = b"", 0
        while True:
            answer = self._send("GET", _path(experiment_id, "logs"), params={"rank": rank, "offset": offset})
            if not answer.content:
                return text.decode("utf-8", errors="replace")
            text, offset = text + answer.content, int(answer.headers["X-Next-Offset"])

    def follow_logs(self, experiment_id: str, *, rank: int = 0) -> Iterator[str]:
        """The lines of one worker's log as they are written, to the experiment's end; a cut stream is resumed."""
        for message in self._follow(_path(experiment_id, "logs/stream"), params={"rank": rank}):
            yield from message.data.split("\n")

    def follow_events(self, experiment_id: str) -> Iterator[EventView]:
        """The changes of state as they happen, until the experiment ends. A cut stream is taken up again."""
        for message in self._follow(_path(experiment_id, "events/stream"), params={}):
            yield EventView.model_validate_json(message.data)

    def whoami(self) -> CallerView:
        """Whom the server takes this client for."""
        return self._get(CallerView, "/v1/whoami")

    def create_token(
        self, name: str, role: Role = Role.USER, *, note: str = "", expires_days: int | None = None
    ) -> NewToken:
        """Make a token; for admins. Its secret is in the answer and nowhere else."""
        wanted = {"name": name, "role": role, "note": note, "expires_days": expires_days}
        return NewToken.model_validate_json(self._send("POST", "/v1/tokens", json=wanted).content)

    def tokens(self) -> Sequence[TokenView]:
        """Every token there ever was, the newest first; for admins."""
        return self._get(TokenList, "/v1/tokens").items

    def revoke_token(self, token_id: str) -> TokenView:
        """Shut a token out; for admins."""
        answer = self._send("DELETE", f"/v1/tokens/{quote(token_id, safe='')}")
        return TokenView.model_validate_json(answer.content)

    def ready(self) -> Readiness:
        """Whether the server can work, and which of its parts are away."""
        return Readiness.model_validate_json(self._send("GET", "/readyz", ok=(503,)).content)

    def _act(self, experiment_id: str, action: str) -> ExperimentView:
        answer = self._send("POST", _path(experiment_id, action))
        return ExperimentView.model_validate_json(answer.content)

    def _get(self, view: type[ViewT], path: str, params: Mapping[str, Any] | None = None) -> ViewT:
        return view.model_validate_json(self._send("GET", path, params=params).content)

    def _send(
        self, method: str, path: str, *, ok: Sequence[int] = (), params: Mapping[str, Any] | None = None, **rest: Any
    ) -> httpx.Response:
        """One request, repeated while the server is away. Every call of this API may be repeated without harm."""
        pauses = Pauses(self._tries)
        while True:
            try:
                answer = self._http.request(method, path, params=params, **rest)
            except httpx.TransportError as error:
                if not pauses.another():
                    raise ServerUnreachable(_unreachable(self.base_url, error)) from error
                continue
            if answer.is_success or answer.status_code in ok:
                return answer
            if answer.status_code != 503 or not pauses.another():
                raise _refusal(answer)

    def _follow(self, path: str, *, params: Mapping[str, Any]) -> Iterator[Message]:
        """The messages of a stream up to its `end`, over as many connections as it takes."""
        pauses, last_id = Pauses(self._tries), ""
        while True:
            try:
                for message in self._stream(path, params=params, last_id=last_id):
                    if message.event == "end":
                        return
                    pauses, last_id = Pauses(self._tries), message.id or last_id
                    yield message
            except httpx.TransportError as error:
                if not pauses.another():
                    raise ServerUnreachable(_unreachable(self.base_url, error)) from error
            else:
                if not pauses.another():
                    raise ServerUnreachable(f"{self.base_url} ends the stream again and again")

    def _stream(self, path: str, *, params: Mapping[str, Any], last_id: str) -> Iterator[Message]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        silence = httpx.Timeout(self._http.timeout.connect, read=STREAM_SILENCE_SECONDS)
        with self._http.stream("GET", path, params=params, headers=headers, timeout=silence) as answer:
            if not answer.is_success:
                answer.read()
                if answer.status_code == 503:
                    raise httpx.RemoteProtocolError("the server is not ready (503)")
                raise _refusal(answer)
            yield from messages(lines_of(answer.iter_text()))


class Pauses:
    """A few pauses, each twice as long as the one before."""

    def __init__(self, tries: int) -> None:
        self._left = tries - 1
        self._seconds = FIRST_PAUSE_SECONDS

    def another(self) -> bool:
        """Wait and say True, or say False where the patience is spent."""
        if self._left <= 0:
            return False
        time.sleep(self._seconds)
        self._left, self._seconds = self._left - 1, min(2 * self._seconds, LONGEST_PAUSE_SECONDS)
        return True


def _body(spec: Spec) -> Any:
    """What goes over the wire; a dict is left as it is, so that the server's answer points into what the user wrote."""
    if isinstance(spec, str | Path):
        spec = read_spec(spec)
    return spec.model_dump(mode="json") if isinstance(spec, ExperimentSpec) else dict(spec)


def _path(experiment_id: str, *rest: str) -> str:
    return "/".join(("/v1/experiments", quote(experiment_id, safe=""), *rest))


def _refusal(answer: httpx.Response) -> ApiError:
    """The problem in the answer, or what can be said of an answer that holds none (a proxy's, another server's)."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": f"{answer.request.url} answers {answer.status_code} {answer.reason_phrase}"}
    return ApiError(answer.status_code, problem)


def _unreachable(url: str, error: httpx.TransportError) -> str:
    return f"{url} does not answer ({error}); start the local stack with `cbam up`, or set CBAM_URL"
