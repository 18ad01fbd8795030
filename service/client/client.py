"""The Python client: submit a spec, wait for its end, read its metrics.

>>> client = Client("http://127.0.0.1:8000")                            # doctest: +SKIP
>>> client.submit("spec.yaml").wait(progress=True).metrics["test/top1"]  # doctest: +SKIP
"""

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack

from service.client.auth import AccessCalls
from service.client.catalog import CatalogueCalls
from service.client.comparing.calls import ComparisonCalls
from service.client.errors import MissingExperiments
from service.client.experiment import ExperimentHandle
from service.client.experiments import Experiments, wait_all
from service.client.files import FileCalls
from service.client.local_url import local_url
from service.client.sweeping.calls import SweepCalls
from service.client.transport import PATIENCE, Transport, path
from service.client.webhooks import WebhookCalls
from service.domain.states import State
from service.schemas.experiments import ExperimentPage, ExperimentView
from service.schemas.health import Readiness
from service.schemas.history import AttemptList, AttemptView, CurveList, CurveView, EventList, EventView
from service.schemas.previews import PreviewView

if TYPE_CHECKING:
    from cbam_core.spec import ExperimentSpec

    Spec = ExperimentSpec | Mapping[str, Any] | str | Path
TRIES = 5
AT_ONCE = 100  # ids in one request: with longer addresses proxies refuse it
PageT = TypeVar("PageT", EventList, AttemptList)


class Where(TypedDict, total=False):
    """Which experiments a list shows, and in which order. What is None or left out narrows nothing."""

    id: Sequence[str]  # these, as far as they are there; at most 200
    state: Sequence[State]
    project: str | None
    owner: str | None
    tag: Sequence[str]  # `name` or `name:value`; all of them must be there
    q: str | None  # part of the name
    backbone: str | None
    attention: str | None
    dataset: str | None
    study: str | None  # id of a comparison or a sweep: only its experiments
    created_after: datetime | None
    created_before: datetime | None
    sort: str | None  # created_at, name, priority, started_at, ended_at; with a minus sign the other way round


class Client(CatalogueCalls, AccessCalls, ComparisonCalls, FileCalls, SweepCalls, WebhookCalls):
    """Talks to one server; may be used from several threads.

    Calls are repeated with back-off while the server is away, says 503 or 429, wherever repeating them does no harm. A
    submission carries an Idempotency-Key, so it may be. Raises ApiError where the server refuses, by its kind:
    NotAuthenticated, NotAllowed, NotFound, NotNow, NotUsable …; ServerUnreachable where it stays away.
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
        self.base_url = (base_url or os.environ.get("CBAM_URL") or local_url()).rstrip("/")
        token = token or os.environ.get("CBAM_TOKEN")
        self.wire = Transport(self.base_url, token, timeout_seconds=timeout_seconds, tries=tries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.wire.close()

    def submit(self, spec: "Spec", *, idempotency_key: str | None = None) -> ExperimentHandle:
        """Submit a spec, a dict of its fields, or the path of a YAML file. The same key gives the same experiment."""
        return self._made("/v1/experiments", _body(spec), idempotency_key)

    def submit_template(
        self, name: str, overrides: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> ExperimentHandle:
        """Submit a template of the server's with changes, as `{"train.epochs": 3}`."""
        return self._made("/v1/experiments", {"template": name, "overrides": dict(overrides or {})}, idempotency_key)

    def clone(
        self, experiment_id: str, overrides: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> ExperimentHandle:
        """Submit the same experiment once more, with changes; the copy is yours."""
        return self._made(path("/v1/experiments", experiment_id, "clone"), dict(overrides or {}), idempotency_key)

    def preview(self, spec: "Spec") -> PreviewView:
        """What would run, at what cost, and what looks odd; nothing is stored."""
        return self.wire.post(PreviewView, "/v1/experiments/preview", again=True, json=_body(spec))

    def preview_template(self, name: str, overrides: Mapping[str, Any] | None = None) -> PreviewView:
        """The same for a template of the server's with changes."""
        body = {"template": name, "overrides": dict(overrides or {})}
        return self.wire.post(PreviewView, "/v1/experiments/preview", again=True, json=body)

    def get(self, experiment_id: str) -> ExperimentHandle:
        """One experiment."""
        return ExperimentHandle(self, self.view(experiment_id))

    def view(self, experiment_id: str, *, patiently: bool = False, until: float | None = None) -> ExperimentView:
        """One experiment as the server shows it now; patiently: also where the server is just being restarted.

        It is not asked again after the time `until` (of `time.monotonic`).
        """
        place = path("/v1/experiments", experiment_id)
        return self.wire.get(ExperimentView, place, patience=PATIENCE if patiently else 1, until=until)

    def list(self, *, page_size: int = 50, spec: bool = True, **where: Unpack[Where]) -> Iterator[ExperimentView]:
        """All experiments that match, the newest first unless `sort` says else; pages are fetched as needed.

        With `spec=False` the views have no specs, and come faster.
        """
        query: dict[str, Any] = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in where.items()
            if value is not None
        }
        yield from self._listed(query | {"limit": page_size} | ({} if spec else {"spec": "false"}))

    def experiments(self, *, limit: int | None = None, **where: Unpack[Where]) -> Experiments:
        """All experiments that match, or the first `limit` of them, as one thing: `to_frame()`, `wait_all()`.

        The newest come first unless `sort` says else. A notebook shows them as a table.
        """
        size = 200 if limit is None else max(1, min(200, limit))
        found = islice(self.list(page_size=size, **where), limit)
        return Experiments(self, (ExperimentHandle(self, view) for view in found))

    def views(
        self, experiment_ids: Sequence[str], *, spec: bool = True, until: float | None = None
    ) -> dict[str, ExperimentView]:
        """These experiments by id, those that are not there left out: one request for a hundred of them.

        A server that is being restarted is waited for, but not beyond the time `until` (of `time.monotonic`).
        """
        ids, found = list(dict.fromkeys(experiment_ids)), dict[str, ExperimentView]()
        for begin in range(0, len(ids), AT_ONCE):
            query = {"id": ids[begin : begin + AT_ONCE], "limit": AT_ONCE} | ({} if spec else {"spec": "false"})
            found |= {view.id: view for view in self._listed(query, patience=PATIENCE, until=until)}
        return found

    def wait_all(
        self, experiments: Iterable[ExperimentHandle | str], *, progress: bool = False, timeout: float | None = None
    ) -> Experiments:
        """Wait until all have ended, however they end, and give them in the order in which they came; ids will do too.

        One that fails ends no wait for the others: look at `state`. `progress` shows a table with bars on a terminal,
        plain lines elsewhere (stderr). Raises WaitTimeout after `timeout` seconds, and they go on; MissingExperiments
        at once where there is none with such an id, and at the end where one was deleted meanwhile.
        """
        given = list(experiments)
        ids = [one for one in given if isinstance(one, str)]
        views = self.views(ids) if ids else {}
        if missing := {*ids} - views.keys():
            raise MissingExperiments(missing)
        handles = [ExperimentHandle(self, views[one]) if isinstance(one, str) else one for one in given]
        wait_all(self, handles, progress=progress, timeout=timeout)
        return Experiments(self, handles)

    def update(
        self,
        experiment_id: str,
        *,
        priority: int | None = None,
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
        version: int | None = None,
    ) -> ExperimentView:
        """Change what is given. With the `version` that was read, raises ChangedMeanwhile where it is another now."""
        given = {"priority": priority, "tags": tags, "description": description}
        answer = self.wire.send(
            "PATCH",
            path("/v1/experiments", experiment_id),
            again=version is None,  # the second time the version would be another
            json={name: value for name, value in given.items() if value is not None},
            headers={} if version is None else {"If-Match": f'"{version}"'},
        )
        return ExperimentView.model_validate_json(answer.content)

    def delete(self, experiment_id: str) -> None:
        """Delete an experiment that has ended, with its logs and checkpoints. Its MLflow run stays."""
        self.wire.send("DELETE", path("/v1/experiments", experiment_id))

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
        items: list[EventView] = []
        for page in self._pages(EventList, path("/v1/experiments", experiment_id, "events")):
            items += page.items
        return items

    def attempts(self, experiment_id: str) -> Sequence[AttemptView]:
        """Every attempt, oldest first."""
        items: list[AttemptView] = []
        for page in self._pages(AttemptList, path("/v1/experiments", experiment_id, "attempts")):
            items += page.items
        return items

    def curves(self, experiment_id: str, *, names: Sequence[str] = (), max_points: int = 1000) -> dict[str, CurveView]:
        """The history of the metrics, or of some of them, by name; of long ones every n-th point."""
        query = {"name": list(names), "max_points": max_points}
        found = self.wire.get(CurveList, path("/v1/experiments", experiment_id, "metrics"), params=query)
        return {curve.name: curve for curve in found.items}

    def logs(self, experiment_id: str, *, rank: int = 0) -> str:
        """The whole log of one worker, as far as it is written."""
        text, offset = b"", 0
        place = path("/v1/experiments", experiment_id, "logs")
        while True:
            answer = self.wire.send("GET", place, params={"rank": rank, "offset": offset})
            if not answer.content:
                return text.decode("utf-8", errors="replace")
            text, offset = text + answer.content, int(answer.headers["X-Next-Offset"])

    def follow_logs(self, experiment_id: str, *, rank: int = 0) -> Iterator[str]:
        """The lines of one worker's log as they are written, to the experiment's end; a cut stream is resumed."""
        place = path("/v1/experiments", experiment_id, "logs", "stream")
        for message in self.wire.follow(place, params={"rank": rank}):
            yield from message.data.split("\n")

    def follow_events(self, experiment_id: str) -> Iterator[EventView]:
        """The changes of state as they happen, until the experiment ends. A cut stream is taken up again."""
        for message in self.wire.follow(path("/v1/experiments", experiment_id, "events", "stream"), params={}):
            yield EventView.model_validate_json(message.data)

    def ready(self) -> Readiness:
        """Whether the server can work, and which of its parts are away."""
        return Readiness.model_validate_json(self.wire.send("GET", "/readyz", ok=(503,)).content)

    def _made(self, place: str, body: Any, key: str | None) -> ExperimentHandle:
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        return ExperimentHandle(self, self.wire.post(ExperimentView, place, json=body, headers=headers))

    def _listed(
        self, query: dict[str, Any], *, patience: int = 1, until: float | None = None
    ) -> Iterator[ExperimentView]:
        while True:
            page = self.wire.get(ExperimentPage, "/v1/experiments", params=query, patience=patience, until=until)
            yield from page.items
            if page.next_cursor is None:
                return
            query = query | {"cursor": page.next_cursor}

    def _act(self, experiment_id: str, action: str) -> ExperimentView:
        """To ask twice for a cancel, a pause or a resume is no error; for a retry that was heard it is."""
        place = path("/v1/experiments", experiment_id, action)
        return self.wire.post(ExperimentView, place, again=action != "retry")

    def _pages(self, view: type[PageT], place: str) -> Iterator[PageT]:
        cursor: str | None = None
        while True:
            page = self.wire.get(view, place, params={} if cursor is None else {"cursor": cursor})
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return


def _body(spec: "Spec") -> Any:
    """What goes over the wire; a dict is left as it is, so that the server's answer points into what the user wrote."""
    if isinstance(spec, Mapping):
        return dict(spec)
    if isinstance(spec, str | Path):
        from cbam_core.spec import read_spec

        spec = read_spec(spec)
    return spec.model_dump(mode="json")
