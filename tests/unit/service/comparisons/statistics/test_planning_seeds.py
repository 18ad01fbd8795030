"""How many seeds, what they can show, and when to stop."""

import math
from itertools import pairwise

import pytest

from service.comparisons.statistics import (
    Interval,
    anytime_radius,
    collapse_bound,
    power,
    seeds_for,
    seeds_needed,
    smallest_difference,
    two_stages,
)


def test_the_range_of_seeds_is_that_of_s():
    needed = seeds_needed(0.005, 0.0042, 7, 1)
    assert needed.low == seeds_for(0.005, 0.0042) == 8
    assert needed.high == seeds_for(0.005, 0.0042 * 1.3532729164287121) > 11
    assert seeds_needed(0.005, 0.0042, 7, 9).low > needed.low


def test_a_difference_that_no_number_of_seeds_shows():
    assert seeds_for(0.00001, 0.01) is None
    assert seeds_for(1.0, 0.001) == 2


@pytest.mark.parametrize("n", [2, 5, 8, 20, 100])
@pytest.mark.parametrize("s", [0.001, 0.42])
def test_the_smallest_difference_has_the_power(n, s):
    assert power(n, smallest_difference(n, s), s) == pytest.approx(0.8, abs=1e-9)


def test_power_grows_to_one_and_is_always_a_number():
    """SciPy's noncentral t is NaN far in its tails, and a NaN is no power of 0.8."""
    for n in (2, 3, 8, 100):
        powers = [power(n, difference / 10, 1.0) for difference in range(1000)]
        assert all(one <= other + 1e-12 for one, other in pairwise(powers))
        assert powers[-1] == pytest.approx(1.0, abs=1e-6)


def test_power_without_a_difference_is_the_level():
    assert power(8, 0.0, 1.0, 0.01) == pytest.approx(0.01, rel=1e-9)


def test_one_number_of_seeds_for_all_variants():
    assert two_stages([0.001, 0.004], half_width=0.003, pilot=8, most=20).seeds == 10
    short = two_stages([0.001, 0.001], half_width=0.003, pilot=8, most=20)
    assert (short.seeds, short.wanted) == (8, 8)
    cut = two_stages([0.001, 0.008], half_width=0.003, pilot=8, most=20)
    assert (cut.seeds, cut.wanted) == (20, 40)
    assert two_stages([], half_width=0.003, pilot=8, most=20).seeds == 8
    assert two_stages([0.008], half_width=0.003, pilot=8, most=5).seeds == 8


def test_the_anytime_interval_is_infinite_for_few_seeds_and_narrows():
    assert [math.isinf(anytime_radius(n, 1.0)) for n in (1, 2, 3, 4, 5)] == [True, True, True, True, False]
    widths = [anytime_radius(n, 1.0) for n in range(5, 200)]
    assert widths == sorted(widths, reverse=True)
    assert anytime_radius(20, 1.0, 0.05 / 9) > anytime_radius(20, 1.0)


def test_the_anytime_interval_is_where_its_e_value_is_one_in_alpha():
    """The Bayes factor of a normal prior with variance 1 on the standardized difference, written out."""
    for n in (6, 10, 40):
        for alpha in (0.05, 0.01):
            t2 = n * anytime_radius(n, 1.0, alpha) ** 2
            bayes = (1 + n) ** -0.5 * ((1 + t2 / (n - 1)) / (1 + t2 / ((n - 1) * (1 + n)))) ** (n / 2)
            assert bayes == pytest.approx(1 / alpha, rel=1e-9)


def test_the_bound_of_collapses():
    assert collapse_bound(8) == pytest.approx(1 - 0.05 ** (1 / 8))
    assert collapse_bound(8, 8) == 1.0
    assert collapse_bound(8) < collapse_bound(8, 1) < collapse_bound(8, 2)


def test_intervals():
    assert Interval.around(1.0, 0.5) == Interval(0.5, 1.5)
    assert 0.5 in Interval(0.5, 1.5)
    assert 1.6 not in Interval(0.5, 1.5)
    assert Interval(-0.4, 0.3).within(0.5)
    assert not Interval(-0.5, 0.3).within(0.5)
