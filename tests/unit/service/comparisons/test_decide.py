"""What a comparison does next, as a function of what is known of it."""

from dataclasses import replace

import pytest

from service.comparisons.decide import MOST_OPEN, ComparisonSeen, TrialSeen, block_order, decide
from service.comparisons.statistics import Pairs, Precision
from service.domain.states import Desired, Reason, State
from service.domain.studies import (
    PROBE_BLOCK,
    STUDY_MOVES,
    BeginTrials,
    PlannedTrial,
    PlanSeeds,
    StudyMove,
    StudyReason,
    StudyState,
    WishFor,
    seed_of,
)

VARIANTS = ("plain", "se", "cbam")


def seen(*trials: TrialSeen, **changes: object) -> ComparisonSeen:
    fields = {
        "state": StudyState.ACTIVE,
        "desired": Desired.RUN,
        "reason": None,
        "message": "",
        "seed": 0,
        "variants": VARIANTS,
        "control": "plain",
        "seeds": 3,
        "precision": None,
        "pairs": Pairs.CONTROL,
        "images": 360,
        "seeds_chosen": False,
        "trials": trials,
    }
    return ComparisonSeen(**fields | changes)


def trial(number: int, **changes: object) -> TrialSeen:
    done = {"state": State.SUCCEEDED, "observed": True, "correct": 180}
    fields = {"number": number, "block": number // 3, "variant": VARIANTS[number % 3]}
    return TrialSeen(**fields | done | changes)


def block(first: int, **changes: object) -> list[TrialSeen]:
    return [trial(3 * first + place, **changes) for place in range(3)]


def test_blocks_are_begun_one_after_the_other_each_of_one_seed():
    (begin,) = decide(seen())
    assert isinstance(begin, BeginTrials)
    assert {one.variant for one in begin.trials} == set(VARIANTS)
    assert {(one.block, one.seed) for one in begin.trials} == {(0, seed_of(0, 0))}
    (second,) = decide(seen(*block(0, state=State.QUEUED, observed=False)))
    assert {(one.block, one.seed) for one in second.trials} == {(1, seed_of(0, 1))}
    assert not decide(seen(*block(0, state=State.QUEUED, observed=False), seeds=1))


def test_the_order_within_a_block_is_shuffled_and_always_the_same():
    orders = [block_order(0, number, VARIANTS) for number in range(40)]
    assert len(set(orders)) == 6, "every order comes up"
    assert orders == [block_order(0, number, tuple(reversed(VARIANTS))) for number in range(40)]
    assert orders != [block_order(1, number, VARIANTS) for number in range(40)]
    assert block_order(0, 0, VARIANTS) == ("plain", "cbam", "se"), (
        "as it was in the first version: stored studies go on"
    )
    assert [seed_of(0, number) for number in range(2)] == [1446583109, 2005510037]


def test_no_more_are_open_than_that():
    waiting = [trial(number, state=State.QUEUED, observed=False) for number in range(MOST_OPEN)]
    assert not decide(seen(*waiting, seeds=100))
    assert decide(seen(*waiting[:-4], seeds=100)), "there is room for a block"
    many = tuple(f"v{number}" for number in range(MOST_OPEN + 1))
    assert decide(seen(variants=many, control="v0")), "a block that is larger is begun where nothing is open"


def test_it_is_decided_once_all_that_is_wanted_was_read():
    assert not decide(seen(*block(0, observed=False), seeds=1))
    assert decide(seen(*block(0), seeds=1)) == [StudyMove(StudyState.SUCCEEDED)]


@pytest.mark.parametrize("state", [State.CANCELLED, None])
def test_what_was_cancelled_or_deleted_ends_nothing(state):
    lost = trial(0, state=state, observed=False, correct=None)
    assert decide(seen(lost, *block(0)[1:], seeds=1)) == [StudyMove(StudyState.SUCCEEDED)]


def test_a_study_ends_where_one_after_the_other_fails():
    broken = {"state": State.FAILED, "reason": Reason.DATA_ERROR, "observed": False, "correct": None}
    two = [*block(0, **broken), *block(1, **broken)]
    (move,) = decide(seen(*two, seeds=10))
    assert (move.to, move.reason) == (StudyState.STOPPING, StudyReason.EXPERIMENTS_FAILED)
    assert "6 experiments" in move.message
    assert "DATA_ERROR" in move.message
    assert isinstance(decide(seen(*two[:3], seeds=10))[0], BeginTrials), "a block that fails is no proof"
    assert isinstance(decide(seen(*two[:5], trial(5), seeds=10))[0], BeginTrials), "one of them went well"


def test_a_run_that_diverged_is_a_result():
    diverged = {"state": State.FAILED, "reason": Reason.LOSS_NOT_FINITE, "observed": False, "correct": 36}
    trials = [*block(0, **diverged), *block(1, **diverged)]
    assert decide(seen(*trials, seeds=2)) == [StudyMove(StudyState.SUCCEEDED)]


def test_the_pilot_chooses_one_number_of_seeds():
    """s of three differences of 0, 1 and 2 images is 1 image: (t(2, 0.975) · 1/360 ÷ 0.005)² = 5.7."""
    rule = Precision(pilot=3, most=20, half_width=0.005)
    ahead = {"plain": 0, "se": 1, "cbam": 1}
    pilot = [trial(number, correct=300 + ahead[VARIANTS[number % 3]] * (number // 3)) for number in range(9)]
    (plan,) = decide(seen(*pilot, precision=rule))
    assert isinstance(plan, PlanSeeds)
    assert plan.seeds == 6
    chosen = {"precision": rule, "seeds_chosen": True}
    assert decide(seen(*pilot, **chosen)) == [StudyMove(StudyState.SUCCEEDED)]
    assert isinstance(decide(seen(*pilot, **chosen, seeds=6))[0], BeginTrials)
    (few,) = decide(seen(*pilot, precision=replace(rule, most=4)))
    assert few.seeds == 4


def test_a_pilot_with_a_hole_chooses_nothing():
    rule = Precision(pilot=3, most=20, half_width=0.01)
    trials = [*block(0), *block(1), trial(6, state=State.CANCELLED, observed=False, correct=None), trial(7), trial(8)]
    (move,) = decide(seen(*trials, precision=rule))
    assert (move.to, "1 of the first 9 runs have no number" in move.message) == (StudyState.SUCCEEDED, True)


def test_a_cancel_reaches_those_that_have_not_ended():
    (move,) = decide(seen(desired=Desired.CANCEL))
    assert move == StudyMove(StudyState.STOPPING, StudyReason.CANCELLED_BY_USER)
    stopping = {"state": StudyState.STOPPING, "reason": StudyReason.CANCELLED_BY_USER}
    running = trial(1, state=State.RUNNING, observed=False)
    assert decide(seen(trial(0), running, **stopping)) == [WishFor((1,), Desired.CANCEL)]
    assert not decide(seen(trial(0), replace(running, desired=Desired.CANCEL), **stopping))
    ended = replace(running, state=State.CANCELLED, desired=Desired.CANCEL)
    assert decide(seen(trial(0), ended, **stopping)) == [StudyMove(StudyState.CANCELLED, StudyReason.CANCELLED_BY_USER)]
    failed = {"state": StudyState.STOPPING, "reason": StudyReason.EXPERIMENTS_FAILED, "message": "five"}
    assert decide(seen(ended, **failed)) == [StudyMove(StudyState.FAILED, StudyReason.EXPERIMENTS_FAILED, "five")]


def test_a_pause_and_a_resume_reach_them_too():
    running = trial(0, state=State.RUNNING, observed=False)
    asked = decide(seen(running, desired=Desired.PAUSE))
    assert asked == [WishFor((0,), Desired.PAUSE), StudyMove(StudyState.PAUSING)]
    pausing = {"state": StudyState.PAUSING, "desired": Desired.PAUSE}
    assert not decide(seen(replace(running, desired=Desired.PAUSE), **pausing))
    paused = replace(running, state=State.PAUSED, desired=Desired.PAUSE)
    assert decide(seen(paused, **pausing)) == [StudyMove(StudyState.PAUSED)]
    assert not decide(seen(paused, state=StudyState.PAUSED, desired=Desired.PAUSE)), "nothing is begun meanwhile"
    resumed = decide(seen(paused, state=StudyState.PAUSED))
    assert resumed == [WishFor((0,), Desired.RUN), StudyMove(StudyState.ACTIVE)]


def test_a_wish_to_cancel_one_experiment_stands():
    leaving = trial(0, state=State.CANCELLING, desired=Desired.CANCEL, observed=False)
    assert decide(seen(leaving, desired=Desired.PAUSE)) == [StudyMove(StudyState.PAUSING)]


@pytest.mark.parametrize("state", StudyState)
@pytest.mark.parametrize("desired", [Desired.RUN, Desired.PAUSE, Desired.CANCEL])
@pytest.mark.parametrize("child", [*State, None])
def test_every_move_is_in_the_table(state, desired, child):
    trials = [trial(number, state=child, observed=False, correct=None) for number in range(9)]
    for step in decide(seen(*trials, state=state, desired=desired)):
        assert not isinstance(step, StudyMove) or step.to in STUDY_MOVES[state]


def test_what_ended_is_left_alone():
    for state in (StudyState.SUCCEEDED, StudyState.FAILED, StudyState.CANCELLED):
        assert not decide(seen(state=state))


def probe(number: int, variant: str = "se", **changes: object) -> TrialSeen:
    done = {"state": State.SUCCEEDED, "observed": True}
    return TrialSeen(**{"number": number, "block": PROBE_BLOCK, "variant": variant} | done | changes)


def begins(variant: str) -> list[BeginTrials]:
    return [BeginTrials((PlannedTrial(PROBE_BLOCK, seed_of(0, 0), variant, against="plain"),))]


def test_probes_come_behind_the_last_training_one_at_a_time():
    asked = {"seeds": 1, "probe": True}
    assert not decide(seen(*block(0, observed=False), **asked)), "what was reached is read first"
    assert decide(seen(*block(0), **asked)) == begins("se")
    waiting = probe(3, state=State.QUEUED, observed=False)
    assert not decide(seen(*block(0), probes=[waiting], **asked))
    assert not decide(seen(*block(0), probes=[probe(3, observed=False)], **asked)), "it is to be read"
    assert decide(seen(*block(0), probes=[probe(3)], **asked)) == begins("cbam")
    both = [probe(3), probe(4, "cbam")]
    assert decide(seen(*block(0), probes=both, **asked)) == [StudyMove(StudyState.SUCCEEDED)]
    more = decide(seen(*block(0), probes=both, seeds=2, probe=True))
    assert {trial.block for trial in more[0].trials} == {1}, "seeds that are added are trained"


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, None])
def test_a_probe_that_gave_up_ends_nothing(state):
    lost = [probe(3 + place, name, state=state, observed=False) for place, name in enumerate(("se", "cbam"))]
    assert decide(seen(*block(0), probes=lost, seeds=1, probe=True)) == [StudyMove(StudyState.SUCCEEDED)]
    assert decide(seen(*block(0), probes=lost[:1], seeds=1, probe=True)) == begins("cbam")


def test_probes_choose_no_seeds_and_are_no_failures():
    rule = Precision(pilot=3, most=20, half_width=0.005)
    pilot = [trial(number, correct=300) for number in range(9)]
    assert isinstance(decide(seen(*pilot, precision=rule, probe=True))[0], PlanSeeds)
    hole = [*pilot[:8], trial(8, state=State.CANCELLED, observed=False, correct=None)]
    assert decide(seen(*hole, precision=rule, probe=True)) == begins("se")
    broken = [probe(number, f"v{number}", state=State.FAILED, reason=Reason.DATA_ERROR) for number in range(9, 19)]
    assert decide(seen(*pilot, probes=broken, probe=True)) == begins("se")


@pytest.mark.parametrize("wish", [Desired.PAUSE, Desired.CANCEL])
def test_wishes_reach_probes_too(wish):
    running = probe(3, state=State.RUNNING, observed=False)
    fields = {"probes": [running], "seeds": 1, "probe": True}
    if wish is Desired.CANCEL:
        stopping = {"state": StudyState.STOPPING, "reason": StudyReason.CANCELLED_BY_USER}
        assert decide(seen(*block(0), **fields, **stopping)) == [WishFor((3,), Desired.CANCEL)]
        left = {**fields, "probes": [replace(running, desired=wish)]}
        assert not decide(seen(*block(0), **left, **stopping)), "it has not ended"
        return
    assert decide(seen(*block(0), **fields, desired=wish))[0] == WishFor((3,), Desired.PAUSE)
    left = {**fields, "probes": [replace(running, desired=wish)]}
    assert not decide(seen(*block(0), **left, state=StudyState.PAUSING, desired=wish)), "it holds its workers"
