"""The result of a comparison, from rows made by hand: which runs count, and what is told of them."""

from typing import get_args

import numpy as np
import pytest

from service.comparisons.observation import Observation
from service.comparisons.result import result_of
from service.comparisons.statistics import Scope, Verdict
from service.domain.states import Reason, State
from service.domain.studies import StudyState, seed_of
from service.schemas.comparison_results import ResultView, ScopeWord, VerdictWord
from tests.support.studies.compared import (
    IMAGES,
    change,
    comparison_spec,
    result,
    row_of,
    rows_of,
    steady,
    study_of,
    unfinish,
)

PRECISION = {"pilot": 8, "most": 20, "stop": {"half_width": 0.005}}


def test_the_words_of_the_schema_are_those_of_the_statistics():
    assert set(get_args(VerdictWord)) == set(Verdict)
    assert set(get_args(ScopeWord)) == set(Scope)


def test_a_finished_comparison_says_what_it_has_shown():
    told = result()
    se, cbam = told.pairs
    assert (cbam.first, cbam.second, cbam.n, cbam.verdict) == ("cbam", "plain", 10, "better")
    assert cbam.difference == pytest.approx((9 * 10 + 9) / (10 * IMAGES))
    assert cbam.differences[:3] == pytest.approx([9 / IMAGES, 11 / IMAGES, 10 / IMAGES])
    assert (cbam.wins.wins, cbam.wins.ties, cbam.wins.losses) == (10, 0, 0)
    assert cbam.new_images is not None
    assert len(cbam.mcnemar) == 10
    assert cbam.parameters_ratio == pytest.approx(280_000 / 272_474)
    assert told.summary == [se.sentence, cbam.sentence]
    assert cbam.sentence.startswith("On these 360 images cbam beats plain by 2.8 points")
    assert not any((told.not_comparable, told.warnings, told.running, told.hidden, told.cut))
    assert (told.images, told.resolution, told.tests) == (IMAGES, 1 / IMAGES, 2)
    assert [(each.name, each.n, each.is_control) for each in told.variants] == [
        ("plain", 10, True),
        ("se", 10, False),
        ("cbam", 10, False),
    ]
    assert told.seeds.values == [seed_of(7, block) for block in range(10)]
    assert [run.block for run in told.variants[0].runs] == list(range(10))
    conditions = {each.name: each.value for each in told.conditions}
    assert (conditions["data"], conditions["device"], conditions["workers"]) == ("digits", "cpu (AMD EPYC)", "1")
    assert ResultView.model_validate_json(told.model_dump_json()) == told, "as a client reads it"


def test_the_verdict_does_not_hang_on_the_order_of_the_rows():
    study = study_of()
    rows = rows_of(study, steady())
    assert result_of(study, sorted(rows, key=lambda row: (row.trial.variant, -row.trial.block))) == result_of(
        study, rows
    )


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ("control", [("se", "plain"), ("cbam", "plain")]),
        ("all", [("se", "plain"), ("cbam", "plain"), ("cbam", "se")]),
    ],
)
def test_the_pairs_are_those_that_were_asked_for(pairs, wanted):
    told = result(study_of(comparison_spec(pairs=pairs)))
    assert [(pair.first, pair.second) for pair in told.pairs] == wanted
    assert told.tests == len(wanted)


def test_nothing_has_run_yet():
    study = study_of(state=StudyState.ACTIVE)
    told = result_of(study, [])
    assert told.running
    assert (told.images, told.resolution, told.seeds.finished, told.seeds.planned) == (None, None, 0, 10)
    assert [each.n for each in told.variants] == [0, 0, 0]
    assert [pair.verdict for pair in told.pairs] == ["running", "running"]
    assert told.summary == ["0 of 10 paired seeds are done."] * 2
    assert told.variants[0].mean is None


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING, State.PAUSED, State.SUCCEEDED])
def test_only_finished_blocks_count(state):
    study = study_of(state=StudyState.ACTIVE)
    rows = rows_of(study, steady())
    unfinish(rows[3 * 4], state)  # plain of the fifth seed
    told = result_of(study, rows)
    assert told.running
    assert told.seeds.finished == 9
    assert seed_of(7, 4) not in told.seeds.values
    assert {pair.verdict for pair in told.pairs} == {"running"}
    assert all(pair.p is None and pair.interval is None and pair.anytime is not None for pair in told.pairs)
    counted = {run.block: run.counted for run in told.variants[1].runs}
    assert [block for block, counts in counted.items() if not counts] == [4]
    assert not told.not_comparable


def test_a_running_comparison_has_an_unbounded_interval_as_null():
    study = study_of(state=StudyState.ACTIVE)
    told = result_of(study, rows_of(study, steady(3)))
    assert told.pairs[0].anytime.low is None
    assert told.pairs[0].anytime.high is None
    assert "Infinity" not in told.model_dump_json()


def test_under_precision_means_stay_hidden_until_the_last_seed():
    spec = comparison_spec(seeds=PRECISION)
    study = study_of(spec, state=StudyState.ACTIVE)
    told = result_of(study, rows_of(study, steady(5)))
    assert told.hidden
    assert told.running
    assert (told.seeds.finished, told.seeds.planned, told.seeds.most, told.seeds.rule) == (5, 8, 20, "precision")
    assert all(not each.accuracies and each.mean is None and each.sd is None for each in told.variants)
    assert all(run.correct is None for each in told.variants for run in each.runs), "which would give it away"
    assert all(not pair.differences and pair.difference is None for pair in told.pairs)
    assert told.variants[0].parameters == 272_474, "costs show"
    assert told.variants[0].n == 5


def wide(seeds: int) -> dict[str, list[int]]:
    """Differences that waver more than the half width allows."""
    return steady(seeds) | {"cbam": [309 + 12 * (block % 2) for block in range(seeds)]}


def test_precision_that_the_most_seeds_do_not_reach_is_told():
    spec = comparison_spec(seeds=PRECISION | {"most": 9})
    study = study_of(spec, seeds=9, seeds_chosen=True)
    told = result_of(study, rows_of(study, wide(9)))
    assert told.cut
    assert not told.hidden
    assert any("half width" in words for words in told.warnings)
    assert told.pairs[1].interval is not None


def test_precision_shows_all_once_the_chosen_seeds_are_done():
    study = study_of(comparison_spec(seeds=PRECISION))
    told = result_of(study, rows_of(study, steady(8)))
    assert not any((told.hidden, told.running, told.cut))
    assert told.pairs[1].verdict == "better"
    assert told.seeds.half_width == 0.005


def test_a_block_that_still_trains_keeps_it_running_whatever_the_spread_says_now():
    """The number of seeds was chosen once; the first eight would ask for no more."""
    study = study_of(comparison_spec(seeds=PRECISION), seeds=9, seeds_chosen=True, state=StudyState.ACTIVE)
    rows = rows_of(study, steady(9))
    unfinish(rows[-1], State.RUNNING)
    told = result_of(study, rows)
    assert told.running
    assert told.hidden


def test_added_seeds_leave_the_anytime_interval_alone():
    study = study_of(seeds=12, seeds_added=True)
    told = result_of(study, rows_of(study, steady(12)))
    assert told.seeds.rule == "added"
    assert all(pair.anytime is not None and pair.p is None and pair.interval is None for pair in told.pairs)
    assert any("seeds were added" in words for words in told.warnings)
    assert told.pairs[1].verdict == "better"


@pytest.mark.parametrize("seeds", [10, PRECISION | {"pilot": 10}])
@pytest.mark.parametrize("state", [StudyState.CANCELLED, StudyState.FAILED])
def test_a_comparison_that_ended_early_tells_what_holds_wherever_one_stops(state, seeds):
    """Between two blocks, so that no run was cancelled with it."""
    study = study_of(comparison_spec(seeds=seeds), state=state)
    told = result_of(study, rows_of(study, steady(8)))
    assert not any((told.running, told.hidden, told.not_comparable))
    assert (told.seeds.rule, told.seeds.finished, told.seeds.planned) == ("stopped", 8, 10)
    assert all(pair.anytime is not None and pair.p is None and pair.interval is None for pair in told.pairs)
    assert told.pairs[1].verdict == "better"
    assert told.warnings == ["it ended before its last seed: only intervals that hold for any number of seeds are told"]


def test_a_run_that_diverged_counts_as_chance():
    study = study_of()
    rows = rows_of(study, steady())
    unfinish(rows[2], State.FAILED, Reason.LOSS_NOT_FINITE)  # cbam of the first seed
    told = result_of(study, rows)
    cbam = told.variants[2]
    assert (cbam.n, cbam.diverged) == (10, 1)
    assert cbam.accuracies[0] == 36 / 360
    assert cbam.runs[0].diverged
    assert not told.not_comparable
    assert any(words.startswith("1 of 10 runs of cbam diverged, and counts") for words in told.warnings)
    assert told.pairs[1].new_images is None, "of which images chance is right, nobody knows"
    assert told.pairs[0].new_images is not None


def test_counts_are_enough_but_say_nothing_of_new_images():
    study = study_of()
    rows = rows_of(study, steady())
    rows[4].trial.observed = None  # se of the second seed
    told = result_of(study, rows)
    assert (told.pairs[0].new_images, told.pairs[0].mcnemar) == (None, None)
    assert told.pairs[0].verdict == "better"
    assert told.pairs[0].scope == "these images only"
    assert told.pairs[1].new_images is not None
    assert told.warnings == [
        "predictions of single images are missing of se, seed 2: nothing is told of new images there"
    ]


def test_images_of_one_group_are_one_piece_of_evidence():
    alone = result().pairs[1].new_images.interval
    study = study_of()
    rows = rows_of(study, steady())
    for row in rows:
        stored = row.trial.observed
        seen = Observation.from_json(stored)
        groups = np.repeat(np.arange(IMAGES // 30, dtype=np.int32), 30)
        row.trial.observed = Observation(seen.right, groups, seen.classes, seen.digest).to_json()
    grouped = result_of(study, rows).pairs[1].new_images.interval
    assert (grouped.low, grouped.high) != (alone.low, alone.high)


def test_val_is_marked_as_what_was_selected_on():
    told = result(study_of(comparison_spec(metric="val/top1")))
    assert told.metric == "val/top1"
    assert any(words.startswith("measured on what was selected on") for words in told.warnings)
    assert not result().warnings


def test_a_margin_below_one_image_is_left_out():
    told = result(study_of(comparison_spec(margin=0.001)))
    assert told.margin is None
    assert [words for words in told.warnings if "0.1 points" in words and "360" in words and "left out" in words]
    assert told.pairs[0].p_equal is None
    assert result(study_of(comparison_spec(margin=0.01))).pairs[0].verdict == "better, by less than the margin"


def test_what_older_runs_do_not_say_is_unknown_and_told_once():
    study = study_of()
    rows = rows_of(study, steady())
    for row in rows[:4]:
        row.experiment.summary = {"parameters": 272_474, "macs": 1}
    told = result_of(study, rows)
    assert not told.not_comparable
    assert told.warnings == [
        "device, world_size, torch, code, data: not known of plain, seed 1; se, seed 1; cbam, seed 1; plain, seed 2, "
        "so not compared there"
    ]


def test_a_run_that_is_deleted_after_it_was_measured_still_counts():
    study = study_of()
    rows = rows_of(study, steady())
    rows[0] = type(rows[0])(rows[0].trial, None)
    told = result_of(study, rows)
    assert told.seeds.finished == 10
    assert not told.not_comparable
    assert any("plain, seed 1" in words and "deleted" in words for words in told.warnings)
    assert told.variants[0].runs[0].state is None


def test_memory_is_compared_on_gpus_alone():
    study = study_of()
    rows = rows_of(study, steady())
    assert result_of(study, rows).pairs[1].memory_ratio is None, "a process's memory is mostly its libraries'"
    for row in rows:
        is_cbam = row.trial.variant == "cbam"
        change(row, device="NVIDIA H100", peak_memory_bytes=2**30 * (3 if is_cbam else 2))
    told = result_of(study, rows)
    assert told.pairs[1].memory_ratio == 1.5
    assert told.variants[2].memory_ratio == 1.5
    assert "memory × 1.50" in told.pairs[1].sentence


def test_one_seed_and_ten_variants():
    variants = {"plain": {"model.attention": "none"}} | {
        f"v{r}": {"model.attention": {"type": "cbam", "reduction": r}} for r in range(2, 11)
    }
    study = study_of(comparison_spec(variants=variants, seeds=2))
    order = np.random.default_rng(0).permutation(IMAGES)
    rows = []
    for block in range(2):
        for name in variants:
            said = np.zeros(IMAGES, dtype=bool)
            said[order[: 300 + block]] = True
            rows.append(row_of(study, name, block, said, number=len(rows) + 1))
    told = result_of(study, rows)
    assert {pair.verdict for pair in told.pairs} == {"not shown"}
    assert len(told.pairs) == 9
    assert told.pairs[0].interval is None
