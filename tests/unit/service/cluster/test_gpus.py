"""GPUs as Ray gives them out: parts of one are never parts of two."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cluster.gpus import ROUNDING, FreeGpus, left_of

parts = st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.5, 0.6, 1.0])


def test_a_part_comes_from_one_gpu():
    assert FreeGpus(2).bundles(0.6) == 2, "and not three, though 1.8 are less than 2"
    assert FreeGpus(0, (0.5, 0.5)).bundles(1.0) == 0
    assert FreeGpus(0, (0.5, 0.5)).bundles(0.5) == 2
    assert FreeGpus(1, (0.4,)).bundles(0.2) == 7
    assert FreeGpus(1).bundles(0.1) == 10, "ten tenths are a whole"


def test_a_part_is_taken_where_it_just_fits_and_else_from_one_that_nobody_shares():
    assert FreeGpus(1, (0.5, 0.8)).less(0.5) == FreeGpus(1, (0.8,))
    assert FreeGpus(1, (0.3,)).less(0.5) == FreeGpus(0, (0.3, 0.5))
    assert FreeGpus(2, (0.5,)).less(1.0) == FreeGpus(1, (0.5,))


def test_a_number_that_says_nothing_of_parts_has_one_at_most():
    assert FreeGpus.of(2.5) == FreeGpus(2, (0.5,))
    assert FreeGpus.of(1.9, (0.4, 0.5)) == FreeGpus(1, (0.4, 0.5))


@pytest.mark.parametrize(
    ("gpus", "taken", "left"),
    [
        (2, [0.5, 0.5], FreeGpus(1)),
        (2, [0.4, 0.4, 0.6, 0.6], FreeGpus(0)),
        (2, [0.6, 0.6], FreeGpus(0, (0.4, 0.4))),
        (4, [1.0, 0.5], FreeGpus(2, (0.5,))),
        (1, [1.0, 0.5], FreeGpus(0)),
        (0, [1.0], FreeGpus(0)),
    ],
)
def test_what_is_left_beside_others(gpus, taken, left):
    ours = left_of(gpus, taken)
    assert (ours.whole, ours.shared) == (left.whole, pytest.approx(left.shared))


@given(st.integers(0, 4), st.lists(parts, max_size=8))
def test_whatever_is_taken_nothing_is_there_that_was_not(gpus, taken):
    left = left_of(gpus, taken)
    assert 0 <= left.total <= gpus
    assert all(0 < part < 1 for part in left.shared)
    assert left.total >= gpus - len(taken)


@given(st.integers(0, 4), st.lists(parts, max_size=8), parts)
def test_what_can_be_had_is_had_one_after_another(gpus, taken, each):
    left = left_of(gpus, taken)
    for _ in range(left.bundles(each)):
        less = left.less(each)
        assert less.total == pytest.approx(left.total - each, abs=10 * ROUNDING)
        left = less
    assert left.bundles(each) == 0
