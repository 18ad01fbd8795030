"""What a comparison tells of cost: measured, under way, failed, not asked for."""

import pytest

from service.client.comparing.table import records
from service.comparisons.figure import figure
from service.comparisons.planner import probe_row
from service.comparisons.report import html, markdown
from service.comparisons.result import result_of
from service.comparisons.submission import trial_spec
from service.comparisons.table import table_of
from service.database.models.experiments import Experiment
from service.database.models.studies import Trial
from service.domain.states import Reason, State
from service.domain.studies import PROBE_BLOCK, StudyState
from service.studies.store import TrialRow
from tests.support.studies.compared import NOW, comparison_spec, rows_of, steady, study_of
from tests.support.studies.compared import SUMMARY as TRAINED
from workers.protocol.probe import ProbeNumbers

SPEEDS = (1000.0, 1010.0, 990.0, 1005.0, 995.0, 1000.0, 1002.0, 998.0)
NUMBERS = ProbeNumbers(
    SPEEDS, tuple(0.9 * speed + place % 2 for place, speed in enumerate(SPEEDS)), (2**30, 2**30 + 2**28)
)


def probe(study, variant, numbers=NUMBERS, *, number=900, state=State.SUCCEEDED, reason=None, **summary) -> TrialRow:
    """The probe of a variant as the dispatcher leaves it."""
    said = TRAINED | {"probe": None if numbers is None else numbers.to_dict()} | summary
    ended = state is State.SUCCEEDED
    trial = Trial(
        study_id=study.id,
        number=number,
        experiment_id=f"p{number}",
        variant=variant,
        block=PROBE_BLOCK,
        seed=1,
        observed_at=NOW if ended else None,
        correct=None,
        images=None,
        observed=probe_row(said) if ended else None,
    )
    if state is None:
        return TrialRow(trial, None)
    row = Experiment(
        id=f"p{number}", name="p", spec={}, state=state, desired="run", reason=reason, message="", summary={}
    )
    return TrialRow(trial, row)


@pytest.fixture
def study():
    return study_of(comparison_spec(probe=True))


def of(study, *probes):
    return result_of(study, [*rows_of(study, steady()), *probes])


def column(view, name):
    table = table_of(view)
    return [dict(zip(table.head, row, strict=True)).get(name) for row in table.rows]


@pytest.fixture
def measured(study):
    return of(study, probe(study, "se"), probe(study, "cbam", ProbeNumbers(SPEEDS, SPEEDS), number=901))


def test_a_probe_is_told_in_numbers_table_and_words(measured):
    se, cbam = measured.probes
    assert (se.state, se.device, se.why) == ("measured", "cpu (AMD EPYC)", "")
    assert se.throughput.value == pytest.approx(0.9005, abs=1e-4)
    assert se.throughput.interval.low < 0.9005 < se.throughput.interval.high
    assert (se.throughput.rounds, se.memory_ratio, cbam.memory_ratio) == (8, 1.25, None)
    assert column(measured, "images/s × [95 %]") == ["–", "× 0.90 [0.90, 0.90]", "× 1.00 [1.00, 1.00]"]
    assert column(measured, "memory") == ["× 1.00", "× 1.25", "–"]
    assert (
        "Images/s × 0.90 [0.90, 0.90], parameters +0.93 %, MACs equal, memory × 1.25, so not at equal cost"
        in (measured.summary[0])
    )
    assert "Images/s × 1.00 [1.00, 1.00], parameters +2.8 %, MACs equal, so not at equal cost" in measured.summary[1]
    assert measured.variants[0].n == 10, "a probe is no seed"
    assert not measured.not_comparable


def test_report_and_figure_show_it(measured):
    text, page, drawn = markdown(measured), html(measured, figure(measured)), figure(measured)
    for told in (text, page):
        assert "× 0.90 [0.90, 0.90]" in told
        assert "compared by a probe on cpu (AMD EPYC)" in told
        assert "8 rounds" in told
    for cell in ("× 0.90", "[0.90, 0.90]", "memory × 1.25", "images/s [95 %]"):
        assert f">{cell}<" in drawn
    assert "cost of" not in text.partition("## Runs")[2], "runs are trainings"


def test_a_frame_holds_it(measured):
    control, se, _ = records(measured)
    assert (control["throughput"], se["memory_ratio"]) == (None, 1.25)
    assert se["throughput_low"] < se["throughput"] < se["throughput_high"]


@pytest.mark.parametrize(
    ("changes", "state", "why"),
    [
        ({"state": State.FAILED, "reason": Reason.CUDA_OOM}, "failed", "its probe failed (CUDA_OOM)"),
        ({"state": State.CANCELLED}, "failed", "its probe was cancelled"),
        ({"state": None}, "failed", "its probe was deleted"),
        ({"numbers": None}, "failed", "its probe left no numbers"),
        ({"state": State.RUNNING}, "running", "its probe has not ended"),
        ({"state": State.QUEUED}, "waiting", "its probe has not ended"),
    ],
)
def test_one_without_numbers_says_why(study, changes, state, why):
    if state != "failed":
        study.state = StudyState.ACTIVE
    view = of(study, probe(study, "se", **changes), probe(study, "cbam", number=901))
    assert [(one.state, one.why) for one in view.probes] == [(state, why), ("measured", "")]
    assert f"Images/s not compared ({why})" in view.summary[0]
    assert column(view, "images/s × [95 %]")[1] == f"probe {state}"
    assert any("the cost of se was not measured" in warning for warning in view.warnings) == (state == "failed")
    assert f"not compared for se: {why}" in markdown(view).replace("\\_", "_")
    assert ">not measured<" in figure(view)
    assert view.pairs[0].verdict == of(study, probe(study, "se")).pairs[0].verdict, "accuracy is judged all the same"


def test_where_none_was_asked_for_that_is_said(study):
    off = of(study_of(comparison_spec(probe=False)))
    assert {one.why for one in off.probes} == {"the comparison asked for no probe"}
    assert "Images/s not compared (the comparison asked for no probe)" in off.summary[0]
    assert column(off, "images/s × [95 %]") == [None] * 3, "no empty column"
    assert not off.warnings
    study.spec = {name: value for name, value in study.spec.items() if name != "probe"}
    assert {one.why for one in of(study).probes} == {"the comparison is from before there were probes"}
    ended = of(study_of(comparison_spec(probe=True), state=StudyState.CANCELLED))
    assert {one.why for one in ended.probes} == {"the comparison ended before its probe"}


def test_variants_are_not_compared_by_probes_against_another(study):
    study = study_of(comparison_spec(probe=True, pairs="all"))
    view = of(study, probe(study, "se"), probe(study, "cbam", number=901))
    last = view.pairs[-1]
    assert (last.first, last.second, last.throughput) == ("cbam", "se", None)
    assert "Images/s not compared (probes are against plain alone)" in last.sentence


def test_a_device_on_which_nothing_was_trained_is_told(study):
    view = of(study, probe(study, "se", device="NVIDIA H100"), probe(study, "cbam", number=901))
    assert "the cost of se was measured on NVIDIA H100, where nothing was trained" in view.warnings


def test_a_probe_has_a_name_of_its_own(study):
    from cbam_core.spec import ExperimentSpec

    base = ExperimentSpec.model_validate(study.specs["se"], strict=False)
    spec = trial_spec(base, study=study.name, variant="se", block=PROBE_BLOCK, seed=3)
    assert (spec.name, spec.train.seed) == ("does cbam help-se-cost", 3)
