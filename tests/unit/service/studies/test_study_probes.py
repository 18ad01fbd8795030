"""Probes of cost in the dispatcher's tick, over a real database and a fake cluster."""

import pytest
from sqlalchemy import select

from service.cluster.base import GangKey
from service.comparisons.result import result_of
from service.database.models.experiments import Experiment
from service.domain.roles import LOCAL
from service.domain.states import State
from service.domain.studies import PROBE_BLOCK, StudyState, seed_of
from service.errors import InvalidField, NothingToRetry
from service.experiments.actions import clone
from tests.support.dispatching import tick
from tests.support.studies.running import comparison, submitted, until

ASKED = {
    "seeds": 2,
    "probe": True,
    "variants": {"plain": {"model.attention": "none"}, "se": {"model.attention": "se"}, "cbam": {}},
}


def probes_of(studies, study):
    return [row for row in studies.trials(study.id) if row.trial.block == PROBE_BLOCK]


@pytest.fixture
def study(studies):
    return submitted(studies, comparison(**ASKED))


def until_a_probe_runs(dispatcher, studies, cluster, study):
    for _ in range(60):
        if probes := probes_of(studies, study):
            cluster.steps_per_look = 1
            if probes[0].experiment.state == State.RUNNING:
                cluster.steps_per_look = 0
                return GangKey(probes[0].experiment.id, 1)
        tick(dispatcher)
        if dispatcher.studies.under_way is not None:
            dispatcher.studies.under_way.exception()
    return pytest.fail("no probe has begun")


def test_probes_come_last_one_at_a_time_and_are_in_the_result(dispatcher, studies, cluster, study):
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    rows = studies.trials(study.id)
    assert [row.trial.block for row in rows] == [0, 0, 0, 1, 1, 1, PROBE_BLOCK, PROBE_BLOCK]
    first, second = probes_of(studies, study)
    assert (first.trial.variant, second.trial.variant) == ("se", "cbam")
    assert second.experiment.created_at >= first.experiment.ended_at, "one beside the other would be in its way"
    assert second.experiment.name == "does cbam help-cbam-cost"
    assert second.experiment.study_id == study.id
    assert second.experiment.spec["model"]["attention"]["type"] == "cbam"
    assert second.experiment.probed_against["model"]["attention"]["type"] == "none"
    seeds = {second.experiment.spec["train"]["seed"], second.experiment.probed_against["train"]["seed"]}
    assert seeds == {seed_of(7, 0)}, "both begin from the same backbone"
    told = [row for row in studies.decisions(study.id) if row.kind == "probe"]
    assert [row.payload for row in told] == [{"variant": name, "against": "plain"} for name in ("se", "cbam")]
    result = result_of(studies.get(study.id), rows)
    assert [probe.state for probe in result.probes] == ["measured", "measured"]
    assert result.pairs[1].throughput.value == pytest.approx(0.9303, abs=1e-4)
    assert "Images/s × 0.93 [" in result.summary[1] or result.pairs[1].n < 8


def test_verdicts_wait_for_no_probe(dispatcher, studies, cluster, study):
    until_a_probe_runs(dispatcher, studies, cluster, study)
    now = studies.get(study.id)
    result = result_of(now, studies.trials(study.id))
    assert (now.state, result.running, result.seeds.finished) == (StudyState.ACTIVE, False, 2)
    assert [probe.state for probe in result.probes] == ["running", "waiting"]


def test_a_probe_that_fails_keeps_nothing_from_its_end_and_is_retried(dispatcher, studies, cluster, study):
    cluster.fail(until_a_probe_runs(dispatcher, studies, cluster, study), "CUDA_OOM")
    cluster.steps_per_look = 5
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    result = result_of(studies.get(study.id), studies.trials(study.id))
    assert [(probe.state, probe.why) for probe in result.probes] == [
        ("failed", "its probe failed (CUDA_OOM)"),
        ("measured", ""),
    ]
    assert "the cost of se was not measured: its probe failed (CUDA_OOM)" in result.warnings
    assert not result.not_comparable
    studies.retry(study.id, by="local")
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    again = result_of(studies.get(study.id), studies.trials(study.id))
    assert [probe.state for probe in again.probes] == ["measured", "measured"]
    with pytest.raises(NothingToRetry):
        studies.retry(study.id, by="local")


def test_a_probe_is_paused_and_resumed_and_cancelled_with_its_comparison(dispatcher, studies, cluster, study):
    until_a_probe_runs(dispatcher, studies, cluster, study)
    studies.wish(study.id, "pause", by="local")
    until(dispatcher, studies, study.id, StudyState.PAUSED)
    assert probes_of(studies, study)[0].experiment.state == State.PAUSED
    studies.wish(study.id, "resume", by="local")
    until(dispatcher, studies, study.id, StudyState.ACTIVE)
    studies.wish(study.id, "cancel", by="local")
    until(dispatcher, studies, study.id, StudyState.CANCELLED)
    assert [row.experiment.state for row in probes_of(studies, study)] == [State.CANCELLED]
    result = result_of(studies.get(study.id), studies.trials(study.id))
    assert [probe.why for probe in result.probes] == [
        "its probe was cancelled",
        "the comparison ended before its probe",
    ]


def test_seeds_that_are_added_are_no_reason_to_measure_again(dispatcher, studies, cluster):
    study = submitted(studies, comparison(seeds=2, probe=True))
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    studies.add_seeds(study.id, 3, by="local")
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert len(studies.trials(study.id)) == 7, "the cost was measured once"


def test_a_probe_is_launched_as_one_and_never_cloned(dispatcher, studies, cluster, study, store, settings, database):
    key = until_a_probe_runs(dispatcher, studies, cluster, study)
    launch = cluster.gangs[key].launch
    assert (launch.probe.control.model.attention.type, launch.spec.model.attention.type) == ("none", "se")
    assert {gang.launch.probe for gang in cluster.gangs.values() if gang.launch.key != key} <= {None}
    original = store.get(key.experiment_id)
    with pytest.raises(InvalidField, match="clone one of the trainings"):
        clone(store, settings, original, {}, caller=LOCAL, key=None)
    with database.writing() as session:
        row = session.scalars(select(Experiment).where(Experiment.id == key.experiment_id)).one()
        row.probed_against = {"name": "damaged"}
    cluster.forget()
    cluster.steps_per_look = 5
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert probes_of(studies, study)[0].experiment.state == State.FAILED, "the others go on"


def test_a_comparison_from_before_probes_has_none(dispatcher, studies, database, study):
    with database.writing() as session:
        row = session.get(type(study), study.id)
        row.spec = {name: value for name, value in row.spec.items() if name != "probe"}
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    result = result_of(studies.get(study.id), studies.trials(study.id))
    assert not probes_of(studies, study)
    assert {probe.why for probe in result.probes} == {"the comparison is from before there were probes"}
