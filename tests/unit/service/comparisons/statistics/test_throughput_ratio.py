"""The ratio of images/s from a probe in turns."""

import numpy as np
import pytest

from service.comparisons.statistics import UnusableProbe, throughput_ratio
from workers.protocol.probe import probe_order


def test_control_and_variant_take_turns():
    assert probe_order() == "cvvccvvccvvccvvc"
    for rounds in range(2, 10):
        order = probe_order(rounds)
        assert all(sorted(order[k : k + 2]) == ["c", "v"] for k in range(0, 2 * rounds, 2))


def test_a_linear_drift_cancels_in_turns():
    speed = np.exp(np.linspace(0, 0.5, 16))
    control = [speed[k] for k, who in enumerate(probe_order()) if who == "c"]
    variant = [0.9 * speed[k] for k, who in enumerate(probe_order()) if who == "v"]
    ratio = throughput_ratio(control, variant)
    assert ratio.value == pytest.approx(0.9)
    assert 0.9 in ratio.interval
    assert ratio.rounds == 8


def test_the_interval_is_students_over_the_rounds_of_the_logarithm():
    """s = 0.01·√(8/7) and t(7, 0.975) = 2.364624, so that the radius is 0.0089374."""
    ratio = throughput_ratio([100.0] * 8, 100 * np.exp([-0.08, -0.06] * 4))
    told = ratio.value, ratio.interval.low, ratio.interval.high
    assert told == pytest.approx((0.9323938, 0.9240978, 0.9407643), abs=1e-6)


def test_a_slow_step_in_a_round_is_no_slow_round():
    control, variant = np.full((8, 9), 100.0), np.full((8, 9), 93.0)
    variant[3, 4] = control[5, 0] = 1.0
    ratio = throughput_ratio(control, variant)
    assert (ratio.value, ratio.interval.low, ratio.interval.high) == pytest.approx((0.93, 0.93, 0.93))


@pytest.mark.parametrize(
    ("control", "variant"),
    [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, 0.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, float("nan")]), ([], [])],
)
def test_a_probe_without_numbers_is_refused(control, variant):
    with pytest.raises(UnusableProbe):
        throughput_ratio(control, variant)
