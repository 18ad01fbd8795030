"""The simulation of gradients between GPUs, against sums done by hand."""

import pytest

from benchmarks.communication import Link, all_reduce_seconds, buckets, efficiency, exposed_seconds, network_cost


def link(bandwidth: float, latency: float = 0.0) -> Link:
    return Link("by hand", bandwidth, latency, (2,))


def test_a_ring_takes_two_hops_for_each_other_worker():
    assert all_reduce_seconds(100, link(100, 0.5), workers=2) == 2 * (0.5 + 0.5)
    assert all_reduce_seconds(100, link(100, 0.5), workers=4) == 6 * (0.25 + 0.5)


def test_buckets_fill_from_the_last_parameter():
    assert buckets([10, 20, 30, 40], limit=50) == [70, 30]
    assert buckets([10, 20, 30, 40], limit=1000) == [100]
    assert buckets([10, 20], limit=1) == [20, 10]


@pytest.mark.parametrize(
    ("bandwidth", "exposed"),
    [
        (100, 0.3),  # 70 bytes are there at 7 s and through at 7.7; 30 at 10 s, and through at 10.3
        (10, 7.0),  # 70 bytes from 7 s to 14; 30 wait for them and are through at 17
    ],
)
def test_what_the_backward_pass_does_not_hide(bandwidth, exposed):
    assert exposed_seconds([70, 30], link(bandwidth), workers=2, backward=10) == pytest.approx(exposed)
    assert efficiency([70, 30], link(bandwidth), workers=2, step=15) == pytest.approx(15 / (15 + exposed))


def test_gradients_are_those_of_the_real_network():
    gradients, macs = network_cost("resnet50", "none")
    assert sum(gradients) == 4 * 25_557_032  # torchvision's count
    assert macs == pytest.approx(4.09e9, rel=0.01)
