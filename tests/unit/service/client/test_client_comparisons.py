"""Comparisons in the hands of a Python user: the real app, a dispatcher, a cluster that trains nothing."""

import threading

import pytest
import yaml

from cbam_core.errors import SpecError
from service.api.app import create_app
from service.client.client import Client
from service.client.errors import ChangedMeanwhile, NotFound, NotNow, NotUsable
from service.client.waiting import WaitTimeout
from service.database.engine import Database
from service.database.study_transitions import note_decision
from service.domain.studies import StudyState
from service.schemas.comparisons import ComparisonSpec
from service.studies.store import StudyStore
from tests.support.live_server import serving
from tests.support.live_service import live_service
from tests.support.specs import spec_dict
from tests.support.studies.comparing import comparison_dict, leave_predictions
from tests.support.studies.rows import GOOD, begun
from tests.support.waiting import wait_until

quickly = pytest.mark.parametrize("settings", [{"tick_seconds": 0.01}], indirect=True)


@pytest.fixture
def client(settings):
    """No dispatcher: nothing moves but by the calls."""
    with serving(create_app(settings)) as url, Client(url, tries=1) as client:
        yield client


@pytest.fixture
def live(settings):
    """Comparisons run to their verdicts."""
    with live_service(settings) as live:
        live.cluster.steps_per_look, live.cluster.export = 50, leave_predictions
        yield live


@pytest.mark.parametrize("form", ["dict", "spec", "path"])
def test_a_comparison_may_come_as_dict_as_spec_or_as_path(client, tmp_path, form):
    path = tmp_path / "comparison.yaml"
    path.write_text(yaml.safe_dump(comparison_dict(), sort_keys=False))
    spec = ComparisonSpec.model_validate(comparison_dict())
    handle = client.compare({"dict": comparison_dict(), "spec": spec, "path": path}[form])
    assert handle.state is StudyState.ACTIVE
    assert handle.view.variants == ("plain", "cbam")
    assert ComparisonSpec.model_validate(client.comparison(handle.id).view.spec) == spec


def test_a_file_may_name_runs_that_have_ended(client, tmp_path):
    path = tmp_path / "comparison.yaml"
    path.write_text("name: afterwards\nfrom: {plain: [a1, a2], cbam: [b1, b2]}\n")
    with pytest.raises(NotUsable, match="there is no experiment 'a1'"):
        client.compare(path)


def test_all_that_is_wrong_with_a_file_is_told_at_once_with_pointers(client, tmp_path):
    path = tmp_path / "wrong.yaml"
    base = comparison_dict()["base"]
    wrong = {"base": {**base, "trian": {}}, "seeds": {"pilot": 8, "stop": {"rule": "precision"}}, "sede": 1}
    path.write_text(yaml.safe_dump(comparison_dict(**wrong), sort_keys=False))
    with pytest.raises(SpecError) as refusal:
        client.compare(path)
    assert str(refusal.value).splitlines() == [
        f"{path}: /base/trian: there is no such field (did you mean train?)",
        f"{path}: /seeds/stop/half_width: Field required",
        f"{path}: /sede: there is no such field (did you mean seed?)",
    ]
    with pytest.raises(NotUsable, match="/base/trian"):  # the server tells the same of a dict
        client.compare(comparison_dict(**wrong))


def test_the_same_key_gives_the_same_comparison(client):
    first, again = (client.compare(comparison_dict(), idempotency_key="k") for _ in range(2))
    assert first.id == again.id != client.compare(comparison_dict()).id


def test_a_preview_says_what_would_run_and_stores_nothing(client):
    shown = client.preview_comparison(comparison_dict(seeds=10))
    assert shown.runs == 20
    assert [*shown.variants] == ["plain", "cbam"]
    assert list(client.comparisons()) == []


def test_pages_are_fetched_as_they_are_needed(client):
    ids = [client.compare(comparison_dict(name=f"c{number}")).id for number in range(5)]
    assert [view.id for view in client.comparisons(page_size=2)] == ids[::-1]
    assert [view.id for view in client.comparisons(state=["PAUSED"])] == []
    assert [view.id for view in client.comparisons(owner="nobody")] == []


def test_all_pages_of_runs_and_decisions_are_read(client, settings):
    database = Database(settings.database_url)
    studies = StudyStore(database)
    study = begun(studies, [GOOD] * 203)
    with database.writing() as session:
        for number in range(410):
            note_decision(session, study, "wish", {"trials": [number]}, by="dispatcher")
    database.close()
    handle = client.comparison(study.id)
    assert [trial.number for trial in handle.trials()] == list(range(203))
    assert [one.payload["trials"] for one in handle.decisions()[1:]] == [[number] for number in range(410)]


def test_seeds_are_added_to_those_that_are_wanted_at_the_moment(client):
    here, there = client.compare(comparison_dict()), client.comparison(next(client.comparisons()).id)
    assert here.add_seeds(2).view.seeds == 10
    assert there.add_seeds(3).view.seeds == 13


def test_two_who_add_seeds_at_once_do_not_overwrite_each_other(client, monkeypatch):
    here, there = client.compare(comparison_dict()), client.comparison(next(client.comparisons()).id)
    send = here._wire.send

    def slowly(method, *words, **request):
        if method == "PATCH":
            monkeypatch.setattr(here._wire, "send", send)
            there.add_seeds(1)
        return send(method, *words, **request)

    monkeypatch.setattr(here._wire, "send", slowly)
    with pytest.raises(ChangedMeanwhile):
        here.add_seeds(2)
    assert here.refresh().view.seeds == 9


@quickly
def test_a_comparison_runs_to_its_verdict(live):
    with Client(live.url) as client:
        handle = client.compare(comparison_dict()).wait()
        assert handle.state is StudyState.SUCCEEDED
        result = handle.result
        (pair,) = result.pairs
        assert (pair.first, pair.second, pair.n, pair.verdict) == ("cbam", "plain", 8, "better")
        assert pair.difference == pytest.approx(0.25)  # ten images of forty
        trials = handle.trials()
        assert len(trials) == 16
        assert {trial.images for trial in trials} == {40}
        assert handle.decisions()[-1].to_state is StudyState.SUCCEEDED
        assert {view.study_id for view in client.list(study=handle.id)} == {handle.id}
        assert len(list(client.list(study=handle.id, page_size=7))) == 16


@quickly
def test_the_result_as_a_frame_and_in_a_notebook(live):
    with Client(live.url) as client:
        handle = client.compare(comparison_dict()).wait()
        table = handle.table().set_index("variant")
        html = handle._repr_html_()
    assert table.loc["cbam", "difference"] == pytest.approx(0.25)
    assert table.loc["cbam", "verdict"] == "better"
    assert table.loc["plain", "n"] == 8
    assert table.loc["cbam", "mean"] - table.loc["plain", "mean"] == pytest.approx(0.25)
    assert "<td>cbam</td>" in html
    assert "<b>does-cbam-help</b>" in html


@quickly
def test_reports_and_figures_are_saved(live, tmp_path):
    with Client(live.url) as client:
        handle = client.compare(comparison_dict(seeds=2)).wait()
        assert handle.save_report(tmp_path / "report.html").read_text() == handle.report(format="html")
        assert handle.save_report(tmp_path / "report.md").read_text() == handle.report(format="markdown")
        assert handle.save_figure(tmp_path / "figure.svg").read_text() == handle.figure()
        assert "<html" in handle.report()
        assert "<svg" in handle.figure()


@quickly
def test_it_is_waited_for_however_it_ends(live):
    live.cluster.steps_per_look = 0
    with Client(live.url) as client:
        handle = client.compare(comparison_dict())
        with pytest.raises(WaitTimeout, match="ACTIVE"):
            handle.wait(timeout=0)
        timer = threading.Timer(0.2, lambda: client.comparison(handle.id).cancel())
        timer.start()
        assert handle.wait(timeout=30).state is StudyState.CANCELLED
        timer.join()
        handle.delete(experiments=True)
        assert list(client.list(study=handle.id)) == []
        with pytest.raises(NotFound):
            handle.refresh()


@quickly
def test_a_deleted_comparison_leaves_its_experiments(live):
    with Client(live.url) as client:
        handle = client.compare(comparison_dict(seeds=2)).wait()
        handle.delete()
        assert len(list(client.list())) == 4


@quickly
def test_it_is_paused_and_resumed(live):
    live.cluster.steps_per_look = 1
    long = spec_dict(train={"epochs": 10_000, "global_batch_size": 64})
    with Client(live.url) as client:
        handle = client.compare(comparison_dict(base=long)).pause()
        assert handle.view.desired == "pause"
        wait_until(lambda: handle.refresh().state is StudyState.PAUSED, "the pause")
        assert handle.resume().view.desired == "run"
        with pytest.raises(NotNow) as refusal:
            handle.retry()
        assert "cancel" in refusal.value.problem["legal"]
