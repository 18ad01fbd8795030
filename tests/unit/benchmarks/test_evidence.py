"""The evidence: every run is trained once, whatever is lost meanwhile, and judged as the service judges it."""

import json
from contextlib import contextmanager

import pytest

from benchmarks.evidence.pages import FOLDER, PAGE, write_pages
from benchmarks.evidence.plan import SPEC, read_plan
from benchmarks.evidence.records import UnfitRecord, read_records
from benchmarks.evidence.result import result
from benchmarks.evidence.running import RunsFailed, finish
from service.client.client import Client
from service.settings import Settings
from tests.support.live_service import live_service
from tests.support.specs import spec_dict
from tests.support.studies.comparing import leave_predictions

RUNS = 6


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "comparison.yaml"
    fields = {
        "name": "small-evidence",
        "base": spec_dict(),
        "variants": {"none": {"model.attention": "none"}, "se": {"model.attention": {"type": "se"}}},
        "margin": 0.03,
        "seeds": 3,
    }
    path.write_text(json.dumps(fields))  # JSON is YAML
    return read_plan(path)


@contextmanager
def home(folder):
    """A service with a home of its own, whose trainings leave predictions and train nothing."""
    settings = Settings(home=folder, tick_seconds=0.05, retry_backoff_seconds=0)
    with live_service(settings) as live, Client(live.url) as client:
        live.cluster.export = leave_predictions
        yield live, client


def finished(client, plan, folder):
    return finish(client, plan, folder, show=lambda *_: pytest.fail("none is shown"), look_seconds=0.05)


def submitted(client):
    return sorted((view.name, view.spec["train"]["seed"]) for view in client.list())


def test_the_comparison_runs_through_the_service_and_is_judged_as_the_service_does(tmp_path, plan):
    with home(tmp_path / "home") as (_, client):
        records = finished(client, plan, tmp_path / "runs")
        theirs = client.comparison(next(client.comparisons()).id).wait(timeout=60).result
        assert submitted(client) == sorted((run.spec.name, run.seed) for run in plan.runs)
    assert len(records) == RUNS
    ours = result(plan, records)
    for mine, other in zip(ours.variants, theirs.variants, strict=True):
        assert (mine.name, mine.n, mine.mean, mine.sd) == (other.name, other.n, other.mean, other.sd)
    assert ours.pairs == theirs.pairs
    assert ours.summary == theirs.summary
    assert ours.not_comparable == theirs.not_comparable == []


def test_with_the_home_lost_only_what_is_not_kept_is_trained_again_and_nothing_else_changes(tmp_path, plan):
    runs = tmp_path / "runs"
    with home(tmp_path / "first") as (_, client):
        before = result(plan, finished(client, plan, runs))
    lost = {plan.runs[1].file, plan.runs[4].file}
    for name in lost:
        (runs / name).unlink()
    with home(tmp_path / "second") as (_, client):
        after = result(plan, finished(client, plan, runs))
        assert not list(client.comparisons())
        assert {name for name, _ in submitted(client)} == {run.spec.name for run in plan.runs if run.file in lost}
        for name in lost:
            (runs / name).unlink()  # killed before they were kept
        finished(client, plan, runs)
        assert len(submitted(client)) == len(lost), "a start asks what there is, and submits nothing twice"
    assert after == before


def test_a_start_with_the_home_kept_submits_nothing_again(tmp_path, plan):
    runs = tmp_path / "runs"
    with home(tmp_path / "home") as (_, client):
        finished(client, plan, runs)
        for run in plan.runs[2:]:
            (runs / run.file).unlink()
        finished(client, plan, runs)
        assert len(submitted(client)) == RUNS
        assert len(list(client.comparisons())) == 1
    finished(None, plan, runs)  # nothing is missing: no service is asked


def test_a_run_that_fails_is_named_and_tried_again_at_the_next_start(tmp_path, plan):
    runs = tmp_path / "runs"
    with home(tmp_path / "home") as (live, client):
        with pytest.raises(RunsFailed, match=f"{plan.runs[0].spec.name}: FAILED"):
            fail_first(live, client, plan, runs)
        assert len(read_records(runs, plan)) == RUNS - 1
        assert len(finished(client, plan, runs)) == RUNS


def fail_first(live, client, plan, runs):
    """Has the first run end badly, as soon as it is started."""
    start = live.cluster.start

    def failing(launch):
        start(launch)
        if launch.spec.name == plan.runs[0].spec.name:
            live.cluster.fail(launch.key, "DATA_ERROR")

    live.cluster.start = failing
    try:
        finished(client, plan, runs)
    finally:
        live.cluster.start = start


def test_a_file_of_another_spec_or_a_damaged_one_is_refused_by_name(tmp_path, plan):
    with home(tmp_path / "home") as (_, client):
        finished(client, plan, tmp_path)
    path = tmp_path / plan.runs[0].file
    whole = path.read_text()
    fields = json.loads(whole)
    del fields["spec"]["train"]["loss"]  # as of a version that had no such field
    path.write_text(json.dumps(fields))
    assert len(read_records(tmp_path, plan)) == len(plan.runs)
    fields["spec"]["train"]["epochs"] = 7
    path.write_text(json.dumps(fields))
    with pytest.raises(UnfitRecord, match=r"none-1\.json: of another spec"):
        read_records(tmp_path, plan)
    path.write_text(whole[:100])
    with pytest.raises(UnfitRecord, match=r"none-1\.json: damaged .* remove it to train it again"):
        read_records(tmp_path, plan)


def test_the_page_has_no_numbers_before_the_last_run(tmp_path, plan):
    with home(tmp_path / "home") as (_, client):
        records = dict(finished(client, plan, tmp_path / "evidence"))
    whole = dict(records)
    records.popitem()
    write_pages(plan, records, tmp_path)
    page = (tmp_path / "evidence.md").read_text()
    assert "So far 5 of 6 runs are there" in page
    assert "Numbers" not in page
    assert not (tmp_path / "images").exists()
    write_pages(plan, whole, tmp_path)
    page = (tmp_path / "evidence.md").read_text()
    assert all(sentence.split(":")[0] in page for sentence in result(plan, whole).summary)
    assert "[52.5 %](evidence/none-1.json)" in page or "[50.0 %](evidence/none-1.json)" in page
    assert (tmp_path / "images" / "evidence.svg").read_text().startswith("<svg")


def test_the_evidence_is_four_variants_of_one_training_over_eight_seeds():
    plan = read_plan()
    assert len(plan.runs) == 4 * 8
    assert [run.spec.model.attention.type for run in plan.runs[:4]] == ["none", "se", "eca", "cbam"]
    assert {(run.spec.data.dataset, run.spec.model.backbone) for run in plan.runs} == {
        ("cluttered_mnist", "cifar_resnet20")
    }
    assert all(run.spec.train.epochs >= 15 for run in plan.runs)
    assert len({run.seed for run in plan.runs}) == 8
    assert [run.file for run in plan.runs if run.is_shown] == ["cbam-1.json"]
    quick = read_plan(quick=True)
    assert len(quick.runs) == 4 * 2
    assert {run.spec.train.epochs for run in quick.runs} == {1}


def test_the_page_that_is_shown_is_what_the_files_say(tmp_path):
    docs, plan = SPEC.parents[2] / "docs", read_plan()
    write_pages(plan, read_records(docs / FOLDER, plan), tmp_path)
    shown, page = ((folder / PAGE).read_text().partition("## What CBAM")[0] for folder in (docs, tmp_path))
    assert shown.strip() == page.strip(), "run scripts/evidence"
