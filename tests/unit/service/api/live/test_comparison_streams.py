"""The stream of a comparison over real HTTP: decisions in order, progress when it changes, and where it was cut."""

import asyncio
import threading
from itertools import pairwise

import httpx2
import pytest

from service.api.app import create_app
from service.client.client import Client
from service.domain.studies import StudyState
from service.schemas.studies import ComparisonProgress, DecisionView
from service.studies.store import StudyStore
from tests.support.live_server import serving
from tests.support.live_service import live_service
from tests.support.studies.comparing import comparison_dict, leave_predictions
from tests.support.studies.running import submitted

VIEWERS = 20


@pytest.fixture
def live(settings):
    with live_service(settings) as live:
        live.cluster.steps_per_look, live.cluster.export = 50, leave_predictions
        yield live


@pytest.mark.parametrize("settings", [{"tick_seconds": 0.01}], indirect=True)
def test_a_comparison_is_followed_to_its_end(live):
    with Client(live.url) as client:
        handle = client.compare(comparison_dict(seeds=2))
        told = list(handle.follow())
        decisions = [one for one in told if isinstance(one, DecisionView)]
        progress = [one for one in told if isinstance(one, ComparisonProgress)]
        assert decisions == handle.decisions()
        view = handle.refresh().view
    assert all(one != other for one, other in pairwise(progress)), "told twice"
    assert progress[-1].read == progress[-1].trials.succeeded == 4
    assert (progress[-1].state, progress[-1].version, progress[-1].trials) == (view.state, view.version, view.trials)


def test_it_goes_on_where_it_was_cut(settings, database):
    """Nothing of a connection is kept: another server answers the second one."""
    studies = StudyStore(database)
    study = submitted(studies)
    path = f"/v1/comparisons/{study.id}/events/stream"

    def until_progress(url: str, last_id: str = "") -> list[tuple[str, str]]:
        seen, headers = [], {"Last-Event-ID": last_id} if last_id else {}
        with httpx2.Client(base_url=url) as client, client.sse(path, headers=headers, timeout=30) as source:
            for event in source:
                seen.append((event.event, event.id))
                if event.event == "progress":
                    return seen
        return seen

    with serving(create_app(settings)) as url:
        (first, last_id), _ = until_progress(url)
    assert first == "decision"
    studies.wish(study.id, "pause", by="ada")
    with serving(create_app(settings)) as url:
        (kind, second), _ = until_progress(url, last_id)
    assert (kind, second) == ("decision", str(studies.decisions(study.id)[-1].seq))


def test_many_viewers_share_the_looks(settings, database, monkeypatch):
    studies = StudyStore(database)
    study, looks, reads = submitted(studies), [], []
    snapshots, decisions = StudyStore.snapshots, StudyStore.decisions
    monkeypatch.setattr(StudyStore, "snapshots", lambda self, ids: looks.append(ids) or snapshots(self, ids))
    monkeypatch.setattr(
        StudyStore, "decisions", lambda self, *args, **more: reads.append(1) or decisions(self, *args, **more)
    )

    async def follow(client: httpx2.AsyncClient) -> str:
        async with client.stream("GET", f"/v1/comparisons/{study.id}/events/stream") as answer:
            return "".join([piece async for piece in answer.aiter_text()])

    async def follow_all(url: str) -> list[str]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=url, timeout=30, limits=limits) as client:
            return await asyncio.gather(*(follow(client) for _ in range(VIEWERS)))

    def delete():
        with database.writing() as session:
            session.delete(studies.get(study.id))

    with serving(create_app(settings)) as url:
        timer = threading.Timer(1.5, delete)
        timer.start()
        seen = asyncio.run(follow_all(url))
        timer.join()
        assert httpx2.get(f"{url}/v1/comparisons/{study.id}/events/stream").status_code == 404
    assert all("event: decision" in text and "event: end" not in text for text in seen), "it is gone, not at its end"
    assert all(ids == [study.id] for ids in looks)
    assert len(reads) <= 2 * len(looks) < VIEWERS


def test_one_that_has_ended_is_told_whole(http, database):
    studies = StudyStore(database)
    study = submitted(studies)
    with database.writing() as session:
        row = session.merge(studies.get(study.id))
        row.state, row.reason, row.message = StudyState.FAILED, "SPEC_UNREADABLE", "an older one"
    text = http.get(f"/v1/comparisons/{study.id}/events/stream").text
    assert [line for line in text.splitlines() if line.startswith("event: ")] == [
        *("event: decision", "event: progress", "event: end")
    ]
    assert '"an older one"' in text
    assert '{"state": "FAILED", "reason": "SPEC_UNREADABLE"}' in text
