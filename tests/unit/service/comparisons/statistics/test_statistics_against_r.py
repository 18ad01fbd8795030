"""Numbers of R 4.2.2, stored in tests/support/reference/statistics.txt; statistics.R beside it prints them anew."""

from pathlib import Path

import numpy as np
import pytest

from service.comparisons.statistics import (
    clopper_pearson,
    collapse_bound,
    correlation,
    holm,
    mcnemar,
    paired_difference,
    power,
    seeds_for,
    sign_flip_test,
    smallest_difference,
    t_interval,
    t_test,
    throughput_ratio,
    tost,
    two_stages,
)
from service.comparisons.statistics.distributions import chi2_quantile, noncentral_t_cdf, t_cdf, t_quantile
from service.comparisons.statistics.images import image_sums

STORED = Path(__file__).parents[4] / "support" / "reference" / "statistics.txt"
R = {
    name: [float(number) for number in numbers.split()]
    for name, _, numbers in (line.partition(": ") for line in STORED.read_text(encoding="utf-8").splitlines())
}
IMAGES = int(R["images"][0])
FIRST, SECOND = (np.array(R[name], dtype=np.int64) for name in ("first", "second"))


def close(expected: float | list[float], rel: float = 1e-10):
    return pytest.approx(expected, rel=rel, abs=1e-300)


def arguments(kind: str) -> list[list[str]]:
    """The arguments in the names of all numbers of a kind."""
    found = [name.removeprefix(kind).split() for name in R if name.startswith(kind + " ")]
    assert found
    return found


@pytest.fixture
def difference():
    return paired_difference(FIRST, SECOND, IMAGES)


def test_the_paired_t_test(difference):
    assert difference.s == close(R["s"][0])
    assert t_test(difference) == close(R["t-test"][0])
    for tests in (1, 3):
        interval = t_interval(difference, 0.05 / tests)
        assert [interval.low, interval.high] == close(R[f"interval {tests}"])


def test_the_sign_flip_test(difference):
    assert sign_flip_test(difference) == R["sign flip"][0]


def test_holm():
    assert holm(R["p"]) == close(tuple(R["holm"]))


@pytest.mark.parametrize("margin", [one[0] for one in arguments("tost")])
def test_equivalence(difference, margin):
    p = tost(difference.mean, difference.se, difference.nu, float(margin))
    assert p == close(R[f"tost {margin}"][0])


@pytest.mark.parametrize(("k", "n"), arguments("clopper-pearson"))
def test_the_exact_interval_of_wins(k, n):
    interval = clopper_pearson(int(k), int(n))
    assert [interval.low, interval.high] == close(R[f"clopper-pearson {k} {n}"])


@pytest.mark.parametrize(("k", "n"), arguments("collapse"))
def test_the_bound_of_collapses(k, n):
    assert collapse_bound(int(n), int(k)) == close(R[f"collapse {k} {n}"][0])


def test_the_correlation_of_pairs():
    found = correlation(FIRST, SECOND)
    assert [found.value, found.interval.low, found.interval.high] == close(R["correlation"])


@pytest.mark.parametrize(("only_first", "only_second"), arguments("mcnemar"))
def test_mcnemar(only_first, only_second):
    b, c = int(only_first), int(only_second)
    first = np.array([[True] * b + [False] * c + [True] * 5])
    second = np.array([[False] * b + [True] * c + [True] * 5])
    assert mcnemar(image_sums(first), image_sums(second)) == close((R[f"mcnemar {b} {c}"][0],))


@pytest.mark.parametrize(("n", "delta", "tests"), arguments("power"))
def test_power_by_the_noncentral_t(n, delta, tests):
    # SciPy's noncentral t and R's differ by some 1e-13 absolutely
    expected = R[f"power {n} {delta} {tests}"][0]
    assert power(int(n), float(delta), 1.0, 0.05 / int(tests)) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("n", [one[0] for one in arguments("smallest difference")])
def test_the_smallest_difference(n):
    assert smallest_difference(int(n), 0.42) == close(R[f"smallest difference {n}"][0], rel=1e-9)


@pytest.mark.parametrize("s", [one[0] for one in arguments("seeds")])
def test_the_seeds_for_half_a_point(s):
    assert seeds_for(0.5, float(s) * 2**0.5) == R[f"seeds {s}"][0]


def test_two_stages_round_up():
    wanted = R["stein 8"][0]
    plan = two_stages([0.0042], half_width=0.002, pilot=8, most=20)
    assert (plan.wanted, plan.seeds) == (np.ceil(wanted), 20)


def test_the_upper_limit_of_s():
    assert (7 / chi2_quantile(0.2, 7)) ** 0.5 == close(R["upper s of 8"][0])


def test_the_ratio_of_throughput():
    ratio = throughput_ratio(R["control images/s"], R["variant images/s"])
    assert [ratio.value, ratio.interval.low, ratio.interval.high] == close(R["ratio"])


@pytest.mark.parametrize("nu", [one[0] for one in arguments("t")])
def test_distribution_functions(nu):
    degrees = float(nu)
    found = [
        t_quantile(0.975, degrees),
        t_quantile(1 - 0.025 / 9, degrees),
        t_cdf(-2.3, degrees),
        t_cdf(-40.0, degrees),
        noncentral_t_cdf(2.1, degrees, 3),
        noncentral_t_cdf(2.1, degrees, 0.4),
    ]
    assert found == close(R[f"t {nu}"])
