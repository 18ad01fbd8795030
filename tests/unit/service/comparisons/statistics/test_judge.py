"""A whole comparison, judged: which numbers are told when, which verdict they give, and what is refused."""

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

from service.comparisons.statistics import (
    Added,
    Fixed,
    MarginBelowResolution,
    Measured,
    Pairs,
    Precision,
    Scope,
    Scores,
    TooFewSeeds,
    UnequalImages,
    UnknownControl,
    UnpairedSeeds,
    Verdict,
    judge,
    paired_difference,
    two_stages,
)
from tests.support.reference.simulated_comparisons import draw_images, of_counts, of_images

IMAGES = 355


def counts(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.int64)


def spread(n: int, mean: int = 300) -> list[int]:
    """Counts of n seeds around a mean."""
    return [mean + one for one in (0, 3, -2, 1, -3, 2, -1, 4, -4, 5, -5, 0, 2, -2, 1, -1, 3, -3, 0, 1)[:n]]


def only(measured: Measured):
    """The one pair of a comparison."""
    (pair,) = judge(measured).pairs
    return pair


def against_plain(n: int, ahead: int = 9, **options) -> Measured:
    """A variant that is ahead by `ahead` images, give or take one."""
    return of_counts(counts(spread(n), [k + ahead + (i % 3 - 1) for i, k in enumerate(spread(n))]), IMAGES, **options)


@pytest.fixture
def matrices():
    return next(draw_images(np.random.default_rng(0), 1, of_variant=1.0))


@pytest.mark.parametrize("n", range(2, 8))
def test_few_seeds_give_dots_then_intervals_and_no_verdict(n):
    pair = only(against_plain(n, margin=0.01))
    assert pair.verdict is Verdict.NOT_SHOWN
    assert (len(pair.differences), pair.n) == (n, n)
    assert pair.difference == pytest.approx(9 / IMAGES, abs=0.51 / IMAGES)
    assert (pair.interval is None, pair.simultaneous is None, pair.wins is None) == (n < 5, n < 5, n < 5)
    assert [pair.p, pair.p_holm, pair.p_sign_flip, pair.p_equal, pair.p_equal_holm] == [None] * 5


def test_eight_seeds_give_a_verdict():
    pair = only(against_plain(8, margin=0.01))
    assert (pair.verdict, pair.scope) == (Verdict.BETTER, Scope.THESE_IMAGES)
    assert pair.p == pair.p_holm < 1e-4
    assert pair.p_sign_flip == 2**-7
    assert (pair.wins.wins, pair.wins.ties, pair.wins.losses) == (8, 0, 0)
    assert pair.new_images is None
    assert pair.interval == pair.simultaneous


def test_the_rules_in_their_order():
    better = against_plain(10, margin=0.05)
    assert only(better).verdict is Verdict.BETTER_WITHIN_MARGIN
    assert only(against_plain(10, ahead=-9, margin=0.05)).verdict is Verdict.WORSE_WITHIN_MARGIN
    assert only(against_plain(10, ahead=-9, margin=0.01)).verdict is Verdict.WORSE
    assert only(against_plain(10, ahead=-9)).verdict is Verdict.WORSE
    assert only(against_plain(10, ahead=0, margin=0.01)).verdict is Verdict.EQUAL
    assert only(against_plain(10, ahead=0)).verdict is Verdict.NOT_SHOWN
    assert only(replace(better, planned=12)).verdict is Verdict.RUNNING
    assert only(replace(better, unfinished=True)).verdict is Verdict.RUNNING
    unequal = judge(replace(better, unfinished=True, unequal=("train.batch_size",)))
    assert unequal.pairs[0].verdict is Verdict.NOT_COMPARABLE
    assert unequal.unequal == ("train.batch_size",)


def test_eight_times_one_image_is_no_certainty():
    pair = only(of_counts(counts(spread(8), [k + 1 for k in spread(8)]), IMAGES))
    assert pair.p == pair.p_sign_flip == 2**-7
    assert pair.s == 0.5 / IMAGES
    assert len(pair.warnings) == 1


def test_equal_results_are_equal_only_within_a_margin_of_their_size():
    same = of_counts(counts(spread(8), spread(8)), IMAGES)
    assert only(same).verdict is Verdict.NOT_SHOWN
    assert only(same).p == 1.0
    assert only(same).wins.ties == 8
    assert only(replace(same, margin=1 / IMAGES)).verdict is Verdict.EQUAL


def test_a_margin_below_one_image_is_refused():
    with pytest.raises(MarginBelowResolution, match=r"0\.2 points is smaller than one image of 355 \(0\.282 points\)"):
        judge(against_plain(8, margin=0.002))
    judge(against_plain(8, margin=1 / IMAGES))


def test_one_variant_alone_has_no_pairs():
    judged = judge(of_counts(counts(spread(8)), IMAGES, margin=0.01))
    assert (judged.pairs, judged.tests, judged.n) == ((), 0, 8)
    assert judged.variants[0].mean == pytest.approx(300 / IMAGES, abs=1 / IMAGES)


def test_nothing_measured_yet():
    judged = judge(of_counts(np.zeros((3, 0), dtype=np.int64), IMAGES, planned=8, margin=0.01))
    assert (judged.n, judged.planned, judged.running) == (0, 8, True)
    assert {pair.verdict for pair in judged.pairs} == {Verdict.RUNNING}
    assert judged.variants[0].mean is None
    single = judge(of_counts(counts([300], [301]), IMAGES, planned=8))
    assert (single.pairs[0].difference, single.pairs[0].s) == (pytest.approx(1 / IMAGES), None)
    assert (single.variants[0].mean, single.variants[0].sd) == (300 / IMAGES, None)


def test_a_diverged_run_counts():
    """Nine seeds are ahead by nine images; the tenth fell to chance. Without it this would be better."""
    rows = counts(spread(10), [k + 9 + i % 3 for i, k in enumerate(spread(10))])
    rows[1, 4] = IMAGES // 10
    measured = of_counts(rows, IMAGES)
    measured = replace(measured, variants={**measured.variants, "variant 1": Scores(counts=rows[1], diverged=1)})
    judged = judge(measured)
    assert judged.pairs[0].verdict is Verdict.NOT_SHOWN
    assert judged.pairs[0].difference < 0
    assert [one.diverged for one in judged.variants] == [0, 1]
    assert judged.variants[0].collapse_bound == pytest.approx(1 - 0.05 ** (1 / 10))
    assert judged.variants[1].collapse_bound > 0.39


def test_holm_takes_all_differences_together():
    rows = counts(spread(8), *([k + 4 + i * step % 5 for i, k in enumerate(spread(8))] for step in (1, 2, 3)))
    control, every = judge(of_counts(rows, IMAGES)), judge(of_counts(rows, IMAGES, pairs=Pairs.ALL))
    assert [(pair.first, pair.second) for pair in control.pairs] == [(f"variant {k}", "plain") for k in (1, 2, 3)]
    assert (control.tests, every.tests, len(every.pairs)) == (3, 6, 6)
    assert min(pair.p_holm for pair in control.pairs) == 3 * min(pair.p for pair in control.pairs)
    assert {(pair.first, pair.second) for pair in every.pairs} >= {("variant 2", "variant 1"), ("variant 3", "plain")}
    assert all(pair.simultaneous.low < pair.interval.low for pair in control.pairs)
    assert every.pairs[0].interval == control.pairs[0].interval
    assert every.pairs[0].simultaneous.low < control.pairs[0].simultaneous.low


def test_the_order_of_variants_does_not_matter(matrices):
    measured = of_images(matrices, margin=0.01)
    turned = replace(measured, variants=dict(reversed(measured.variants.items())))
    assert {pair.first: pair for pair in judge(turned).pairs} == {pair.first: pair for pair in judge(measured).pairs}


def test_the_control_turned_about_flips_the_sign(matrices):
    measured = of_images(matrices[:2], margin=0.02)
    one, other = only(measured), only(replace(measured, control="variant 1"))
    assert (other.first, other.second, other.difference) == ("plain", "variant 1", -one.difference)
    assert (other.p, other.p_equal, other.mcnemar) == (one.p, one.p_equal, one.mcnemar)
    assert other.new_images.p == one.new_images.p
    assert other.interval.low == -one.interval.high


def test_counts_and_predictions_agree(matrices):
    by_image = judge(of_images(matrices, margin=0.02))
    by_count = judge(of_counts(matrices.sum(axis=2), matrices.shape[2], margin=0.02))
    told = [replace(pair, new_images=None, mcnemar=None, scope=None, more_images=False) for pair in by_image.pairs]
    assert told == [replace(pair, scope=None) for pair in by_count.pairs]
    assert all(pair.new_images and len(pair.mcnemar) == 8 for pair in by_image.pairs)


def test_a_variant_without_predictions_has_no_scope_beyond_these_images(matrices):
    measured = of_images(matrices, margin=0.02)
    some = {**measured.variants, "variant 2": Scores(counts=matrices[2].sum(axis=1))}
    pairs = judge(replace(measured, variants=some)).pairs
    assert [pair.new_images is None for pair in pairs] == [False, True, False]
    # it still counts in Holm's m
    assert pairs[0].new_images.p_holm >= pairs[0].new_images.p * (
        2 if pairs[0].new_images.p > pairs[2].new_images.p else 3
    )


def test_the_scope_is_new_images_where_the_crossed_tests_agree():
    same = next(draw_images(np.random.default_rng(1), 1, images=4000, of_variant=0.0, variants=1))
    random = np.random.default_rng(2)
    ahead = same | (random.random(same.shape) < 0.5)  # half of all mistakes are gone, on every image
    better = only(of_images(np.concatenate([same, ahead])))
    assert (better.verdict, better.scope) == (Verdict.BETTER, Scope.NEW_IMAGES)
    equal = only(of_images(np.concatenate([same, same ^ (random.random(same.shape) < 0.001)]), margin=0.01))
    assert (equal.verdict, equal.scope) == (Verdict.EQUAL, Scope.NEW_IMAGES)


def test_groups_widen_what_is_said_of_new_images():
    drawn = next(draw_images(np.random.default_rng(3), 1, images=71, copies=5, variants=2, of_variant=1.0))
    groups = np.arange(71).repeat(5)
    alone, grouped = only(of_images(drawn)), only(of_images(drawn, groups=groups))
    assert (alone.interval, alone.p) == (grouped.interval, grouped.p)
    assert grouped.new_images.image_variance > 2 * alone.new_images.image_variance
    assert only(of_images(drawn, groups=np.zeros(355, dtype=np.int64))).new_images is None


def test_more_images_are_asked_for_where_seeds_cannot_help():
    drawn = next(draw_images(np.random.default_rng(4), 1, variants=2, seeds=20, of_variant=2.0))
    assert only(of_images(drawn, margin=0.005)).more_images
    assert not only(of_images(drawn, margin=0.2)).more_images


def test_while_a_fixed_number_of_seeds_runs_only_the_anytime_interval_is_told():
    judged = judge(against_plain(6, margin=0.01, planned=10))
    pair = judged.pairs[0]
    assert (judged.running, judged.hidden, pair.verdict) == (True, False, Verdict.RUNNING)
    assert len(pair.differences) == 6
    assert pair.anytime.low < pair.difference < pair.anytime.high < np.inf
    assert [pair.interval, pair.p, pair.p_sign_flip, pair.wins, pair.new_images, pair.seeds_needed] == [None] * 6
    assert only(against_plain(4, planned=10)).anytime.high == np.inf


@pytest.mark.parametrize("n", [3, 8, 11])
def test_while_precision_runs_means_stay_hidden(n):
    noisy = [k + (-1) ** i * 9 for i, k in enumerate(spread(n))]
    rule = Precision(half_width=0.01, most=12)
    judged = judge(of_counts(counts(spread(n), noisy), IMAGES, stopping=rule))
    assert (judged.running, judged.hidden, judged.planned) == (True, True, 12 if n >= 8 else 8)
    assert judged.pairs[0] == type(judged.pairs[0])(first="variant 1", second="plain", n=n, verdict=Verdict.RUNNING)
    assert (judged.variants[0].mean, judged.variants[0].sd, judged.variants[0].accuracies) == (None, None, ())


def test_precision_ends_where_the_pilot_says_and_keeps_its_s():
    random = np.random.default_rng(6)
    rows = np.rint(random.normal(300, 4, (3, 40))).astype(np.int64)
    rule = Precision(half_width=0.01, most=100)
    pilots = [paired_difference(row, rows[0], IMAGES, pilot=8) for row in rows[1:]]
    plan = two_stages((d.s for d in pilots), half_width=0.01, pilot=8, most=100)
    assert 8 < plan.seeds <= 40
    judged = judge(of_counts(rows[:, : plan.seeds], IMAGES, stopping=rule, margin=0.01))
    assert (judged.running, judged.hidden, judged.cut, judged.planned) == (False, False, False, plan.seeds)
    assert [pair.s for pair in judged.pairs] == [d.s for d in pilots]
    assert all((pair.interval.high - pair.interval.low) / 2 <= 0.01 for pair in judged.pairs)
    early = judge(of_counts(rows[:, : plan.seeds - 1], IMAGES, stopping=rule))
    assert (early.hidden, early.planned) == (True, plan.seeds)


def test_precision_that_was_cut_says_so():
    random = np.random.default_rng(7)
    rows = np.rint(random.normal(300, 8, (2, 10))).astype(np.int64)
    judged = judge(of_counts(rows, IMAGES, stopping=Precision(half_width=0.005, most=10)))
    assert (judged.running, judged.cut, judged.planned) == (False, True, 10)
    assert judged.warnings[0].startswith("the half width asked for needs ")


def test_the_mean_of_the_pilot_does_not_decide_how_many_seeds():
    random = np.random.default_rng(8)
    rows = np.rint(random.normal(250, 4, (2, 8))).astype(np.int64)
    rule = Precision(half_width=0.01, most=100)
    plans = {judge(of_counts(rows + counts([0], [shift]), IMAGES, stopping=rule)).planned for shift in (-40, 0, 40)}
    assert len(plans) == 1


def test_added_seeds_leave_the_anytime_interval_alone():
    measured = against_plain(12, margin=0.05, stopping=Added())
    pair = only(measured)
    assert [pair.interval, pair.simultaneous, pair.p, pair.p_holm, pair.p_sign_flip, pair.p_equal] == [None] * 6
    assert pair.anytime.low > 0
    assert pair.verdict is Verdict.BETTER_WITHIN_MARGIN
    assert pair.anytime.low < only(replace(measured, stopping=Fixed())).interval.low


def test_added_seeds_leave_room_for_the_images_too():
    drawn = next(draw_images(np.random.default_rng(5), 1, variants=2, seeds=12, of_variant=2.0))
    fixed, added = only(of_images(drawn)), only(of_images(drawn, stopping=Added()))
    assert [added.new_images.p, added.new_images.p_holm, added.new_images.p_equal] == [None] * 3
    radius = (added.new_images.interval.high - added.new_images.interval.low) / 2
    assert radius > (added.anytime.high - added.anytime.low) / 2 + 2.2 * fixed.new_images.image_variance**0.5


def test_the_anytime_interval_is_wider_for_more_variants():
    rows = counts(spread(12), *([k + 9 for k in spread(12)],) * 3)
    one, three = (judge(of_counts(rows[:k], IMAGES, stopping=Added())).pairs[0] for k in (2, 4))
    assert three.anytime.low < one.anytime.low < one.anytime.high < three.anytime.high


def test_results_that_do_not_belong_together_are_refused():
    good = against_plain(8)
    with pytest.raises(UnknownControl, match="'plane' is none of plain, variant 1"):
        judge(replace(good, control="plane"))
    with pytest.raises(UnpairedSeeds, match="'variant 1': 7"):
        judge(replace(good, variants={"plain": good.variants["plain"], "variant 1": Scores(counts=counts([1] * 7)[0])}))
    with pytest.raises(TooFewSeeds, match="a pilot needs"):
        judge(replace(good, stopping=Precision(half_width=0.01, pilot=1)))


@pytest.mark.parametrize(
    "scores",
    [
        Scores(),
        Scores(counts=np.array([IMAGES + 1] * 8)),
        Scores(counts=np.array([-1] * 8)),
        Scores(counts=np.array([0.5] * 8)),
        Scores(correct=np.zeros((8, IMAGES - 1), dtype=bool)),
        Scores(correct=np.zeros((8, IMAGES), dtype=np.int64)),
        Scores(correct=np.zeros(IMAGES, dtype=bool)),
    ],
    ids=["nothing", "too many", "negative", "a fraction", "other images", "no Booleans", "no matrix"],
)
def test_results_that_are_no_counts_of_these_images_are_refused(scores):
    good = against_plain(8)
    with pytest.raises(UnequalImages, match="variant 1: "):
        judge(replace(good, variants={"plain": good.variants["plain"], "variant 1": scores}))


def test_groups_of_other_images_are_refused(matrices):
    with pytest.raises(UnequalImages):
        judge(of_images(matrices, groups=np.arange(9)))


@pytest.mark.slow
def test_ten_variants_twenty_seeds_and_ten_thousand_images_take_milliseconds():
    drawn = next(draw_images(np.random.default_rng(9), 1, variants=10, seeds=20, images=10_000, of_variant=0.5))
    measured, times = of_images(drawn, margin=0.005), []
    for _ in range(20):
        began = perf_counter()
        judge(measured)
        times.append(perf_counter() - began)
    print(f"judge: {1000 * min(times):.1f} ms")
    assert min(times) <= 0.025
