"""One difference over paired seeds, where a t-test by the book goes wrong."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.comparisons.statistics import (
    Interval,
    TooFewSeeds,
    UnpairedSeeds,
    correlation,
    holm,
    paired_difference,
    sign_flip_test,
    t_interval,
    t_test,
    wins_ties_losses,
)

counts_of_images = st.lists(st.integers(0, 355), min_size=2, max_size=9)


def difference_of(images: list[int], of: int = 355):
    return paired_difference(np.array(images), np.zeros(len(images), dtype=np.int64), of)


def test_eight_equal_differences_of_one_image_are_no_certainty():
    """As fractions they have s = 4e-17 and p = 2e-98."""
    d = paired_difference(np.arange(300, 308) + 1, np.arange(300, 308), 355)
    assert d.constant
    assert d.s == 0.5 / 355
    assert t_test(d) == 2**-7
    interval = t_interval(d)
    assert 0 < interval.low < 1 / 355 < interval.high


def test_equal_results_are_no_difference():
    d = difference_of([0] * 8)
    assert (t_test(d), sign_flip_test(d)) == (1.0, 1.0)
    assert t_interval(d).low < 0 < t_interval(d).high


def test_s_is_never_below_half_an_image():
    assert difference_of([1, 1, 1, 1, 1, 1, 1, 0]).s == 0.5 / 355
    assert difference_of([3, 1, 4, 1, 5, 9, 2, 6]).s == pytest.approx(np.std([3, 1, 4, 1, 5, 9, 2, 6], ddof=1) / 355)


def test_a_pilot_gives_s_and_all_seeds_the_mean():
    d = paired_difference(np.array([1, 2, 3, 4, 50, 60]), np.zeros(6, dtype=np.int64), 100, pilot=4)
    assert d.s == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 100)
    assert (d.nu, d.n, d.mean) == (3, 6, 0.2)


def test_a_constant_pilot_is_judged_by_all_signs():
    d = paired_difference(np.array([2, 2, 2, 2, -9, 2]), np.zeros(6, dtype=np.int64), 100, pilot=4)
    assert t_test(d) == sign_flip_test(d) == 1.0


def test_what_cannot_be_paired():
    with pytest.raises(UnpairedSeeds):
        paired_difference(np.array([1, 2]), np.array([1, 2, 3]), 10)
    with pytest.raises(TooFewSeeds):
        difference_of([1])


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
@settings(max_examples=100, deadline=None)
def test_the_sign_flip_test_counts_all_signs(images):
    if len(images) == 1:
        images = [*images, 0]
    sums = [
        abs(sum(s * d for s, d in zip(signs, images, strict=True))) for signs in product((-1, 1), repeat=len(images))
    ]
    assert sign_flip_test(difference_of(images)) == sum(one >= abs(sum(images)) for one in sums) / len(sums)


def test_the_floor_of_the_sign_flip_test():
    for n in range(2, 21):
        assert sign_flip_test(difference_of([3 * k + 1 for k in range(n)])) == 2.0 ** (1 - n)


@given(counts_of_images, st.data())
@settings(max_examples=100, deadline=None)
def test_swapping_a_pair_flips_signs_and_nothing_else(first, data):
    second = data.draw(st.lists(st.integers(0, 355), min_size=len(first), max_size=len(first)))
    one = paired_difference(np.array(first), np.array(second), 355)
    other = paired_difference(np.array(second), np.array(first), 355)
    assert (one.mean, one.s, t_test(one), sign_flip_test(one)) == (
        -other.mean,
        other.s,
        t_test(other),
        sign_flip_test(other),
    )
    assert t_interval(one) == Interval(-t_interval(other).high, -t_interval(other).low)


def test_wins_ties_and_losses():
    told = wins_ties_losses([3, 0, -1, 2, 2, 0, 1, 5])
    assert (told.wins, told.ties, told.losses) == (5, 2, 1)
    assert 0.2 < told.interval.low < 5 / 8 < told.interval.high < 0.95


def test_the_correlation_of_few_or_constant_results_is_not_told():
    assert correlation(np.array([1, 2, 3]), np.array([2, 4, 9])) is None
    assert correlation(np.array([1, 2, 3, 4]), np.array([7, 7, 7, 7])) is None
    assert correlation(np.array([1, 2, 3, 4]), np.array([2, 4, 6, 8])).interval == Interval(1.0, 1.0)


@given(st.lists(st.floats(0, 1), max_size=8))
@settings(max_examples=100, deadline=None)
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p):
    adjusted = holm(p)
    assert all(one <= other <= min(1.0, len(p) * one) for one, other in zip(p, adjusted, strict=True))
    ranked = [adjusted[i] for i in sorted(range(len(p)), key=p.__getitem__)]
    assert ranked == sorted(ranked)
    assert holm(p[::-1])[::-1] == adjusted
