"""Everything that makes the runs of a comparison *not comparable*, each named."""

import json

import pytest

from service.comparisons.observation import Observation
from service.comparisons.result import result_of
from service.database.models.studies import Study
from service.domain.states import Reason, State
from service.domain.studies import StudyState
from service.schemas.comparison_results import ResultView
from service.studies.store import TrialRow
from tests.support.studies.compared import change, comparison_spec, rows_of, steady, study_of, unfinish

ODD = 5  # cbam of the second seed


def told(spoil, study: Study | None = None) -> ResultView:
    study = study or study_of()
    rows = rows_of(study, steady())
    rows[ODD] = spoil(rows[ODD]) or rows[ODD]
    return result_of(study, rows)


def edited(path: str, value: object):
    """A run whose spec is another one there."""

    def spoil(row: TrialRow) -> None:
        spec = json.loads(json.dumps(row.experiment.spec))
        *parents, last = path.split(".")
        place = spec
        for name in parents:
            place = place[name]
        place[last] = value
        row.experiment.spec = spec

    return spoil


def other_images(row: TrialRow) -> None:
    row.trial.observed = row.trial.observed | {"digest": "fedcba9876543210"}


def fewer_images(row: TrialRow) -> None:
    right = Observation.from_json(row.trial.observed).right[:359]
    row.trial.images, row.trial.correct = 359, int(right.sum())
    row.trial.observed = Observation(right, None, 10, "fedcba9876543210").to_json()


def left_nothing(row: TrialRow) -> None:
    row.trial.correct = row.trial.images = row.trial.observed = None


CASES = {
    "cancelled": (lambda row: unfinish(row, State.CANCELLED, Reason.CANCELLED_BY_USER), "outcome", "cancelled"),
    "failed": (lambda row: unfinish(row, State.FAILED, Reason.CUDA_OOM), "outcome", "failed (CUDA_OOM)"),
    "deleted": (lambda row: TrialRow(unfinish(row, State.QUEUED).trial, None), "outcome", "deleted"),
    "nothing to read": (left_nothing, "outcome", "left nothing to read"),
    "epochs": (edited("train.epochs", 2), "train.epochs", "was to be 1, and is 2"),
    "seed": (edited("train.seed", 3), "train.seed", "is 3"),
    "model": (edited("model.attention.reduction", 4), "model.attention.reduction", "is 4"),
    "data": (edited("data.val", "folder"), "data.val", "is folder"),
    "workers": (edited("resources.workers", 2), "resources.workers", "is 2"),
    "other images": (other_images, "test images", "digest fedcba9876543210"),
    "fewer images": (fewer_images, "test images", "359 images"),
    "semantics": (lambda row: change(row, semantics=1), "semantics", "1 (cbam, seed 2)"),
    "device": (lambda row: change(row, device="NVIDIA H100"), "device", "NVIDIA H100 (cbam, seed 2)"),
    "world size": (lambda row: change(row, world_size=2), "world_size", "2 (cbam, seed 2)"),
    "torch": (lambda row: change(row, torch="2.8.0"), "torch", "2.8.0"),
    "code": (lambda row: change(row, code="0.2.0-000000000000"), "code", "0.2.0-000000000000"),
    "split": (lambda row: change(row, split="1294 train, 143 val, 360 test"), "split", "1294 train"),
}


@pytest.mark.parametrize(("spoil", "field", "words"), CASES.values(), ids=CASES)
def test_one_field_of_one_run(spoil, field, words):
    result = told(spoil)
    assert [each.field for each in result.not_comparable] == [field]
    (unequal,) = result.not_comparable
    assert words in unequal.words
    assert "cbam, seed 2" in unequal.words
    assert {pair.verdict for pair in result.pairs} == {"not comparable"}
    assert all("not comparable" in words and field in words for words in result.summary)
    assert sum(value.runs for value in unequal.values) in (29, 30)
    assert not result.running


def test_runs_that_started_from_other_bytes_are_told_apart():
    """Where the server did not see the file, only the workers say which one they read."""
    study = study_of()
    rows = rows_of(study, steady())
    for number, row in enumerate(rows):
        change(row, weights_sha256=("b" if number == ODD else "a") * 64)
    (unequal,) = result_of(study, rows).not_comparable
    assert unequal.field == "weights_sha256"
    assert "cbam, seed 2" in unequal.words


@pytest.mark.parametrize(
    ("field", "value"), [("name", "x"), ("description", "x"), ("tags", {"a": "b"}), ("priority", 9)]
)
def test_what_changes_nothing_may_differ(field, value):
    assert not told(edited(field, value)).not_comparable


def test_what_one_variant_may_have_no_run_of_another_may():
    """The spec of each run is held to that of its own variant."""

    def as_plain(row: TrialRow) -> None:
        row.experiment.spec = row.experiment.spec | {"model": study.specs["plain"]["model"]}

    study = study_of()
    fields = [each.field for each in told(as_plain, study).not_comparable]
    assert "model.attention.type" in fields


def test_all_fields_are_named_at_once():
    def spoil(row: TrialRow) -> None:
        change(row, semantics=1, torch="2.8.0")
        edited("train.epochs", 2)(row)

    assert [each.field for each in told(spoil).not_comparable] == ["train.epochs", "semantics", "torch"]


def test_a_field_that_is_newer_than_a_run_is_as_by_default():
    """A stored spec lacks what a later version added; what it lacks is not unequal."""

    def older(row: TrialRow) -> None:
        row.experiment.spec = {name: value for name, value in row.experiment.spec.items() if name != "preemptible"}

    assert not told(older).not_comparable
    study = study_of()
    for name in study.specs:
        study.specs = study.specs | {name: {k: v for k, v in study.specs[name].items() if k != "preemptible"}}
    rows = rows_of(study, steady())
    assert not result_of(study, rows).not_comparable


def test_a_cancelled_run_counts_against_it_even_while_others_train():
    study = study_of(state=StudyState.ACTIVE)
    rows = rows_of(study, steady())
    unfinish(rows[ODD], State.CANCELLED, Reason.CANCELLED_BY_USER)
    unfinish(rows[-1], State.RUNNING)
    result = result_of(study, rows)
    assert result.running
    assert {pair.verdict for pair in result.pairs} == {"not comparable"}


def test_a_run_that_diverged_is_no_difference():
    result = told(lambda row: unfinish(row, State.FAILED, Reason.LOSS_NOT_FINITE))
    assert not result.not_comparable


def test_chance_that_is_unknown_leaves_a_diverged_run_without_a_number():
    result = told(lambda row: unfinish(row, State.FAILED, Reason.LOSS_NOT_FINITE), study_of(classes=None))
    assert "chance" in result.not_comparable[0].words


def test_the_part_is_named_that_was_measured():
    result = told(other_images, study_of(comparison_spec(metric="val/top1")))
    assert [each.field for each in result.not_comparable] == ["val images"]


def test_the_lists_are_bounded():
    study = study_of()
    rows = rows_of(study, steady())
    for number, row in enumerate(rows):
        change(row, device=f"{'a name without end ' * 20}{number}")
    (unequal,) = result_of(study, rows).not_comparable
    assert len(unequal.values) == 5
    assert all(len(value.value) <= 80 and len(value.of) <= 5 for value in unequal.values)
    assert len(unequal.words) < 1000
