import pytest
import torch

from workers.train.pace import Pace
from workers.train.utilisation import model_flops_utilisation, peak_flops, peak_memory_bytes


def test_the_first_step_does_not_count():
    pace = Pace(images_per_step=100)
    pace.step_took(60.0, 50.0)
    assert pace.images_per_second is None
    assert pace.eta_seconds(10, 1, 4) is None
    assert pace.metrics() == {}
    for _ in range(4):
        pace.step_took(0.5, 0.1)
    assert pace.metrics() == {"images_per_second": 200.0, "data_wait_share": pytest.approx(0.2)}


def test_the_eta_counts_steps_and_evaluations():
    pace = Pace(images_per_step=100)
    for _ in range(3):
        pace.step_took(0.5, 0.0)
    assert pace.eta_seconds(10, 2, 6) == pytest.approx(10 * 0.5 + 2 * 6 * 0.5 / 3)
    pace.evaluation_took(3.0)
    assert pace.eta_seconds(10, 2, 6) == pytest.approx(10 * 0.5 + 2 * 3.0)


def test_utilisation_of_a_known_device():
    """ResNet-50 is 4.1 GMAC an image; 1,000 images/s of training are 24.6 TFLOP/s."""
    assert model_flops_utilisation(4_100_000_000, 1000, 312e12) == pytest.approx(24.6 / 312)
    assert peak_flops(torch.device("cpu"), "bf16", 1) is None


def test_peak_memory_grows_with_what_is_held():
    before = peak_memory_bytes(torch.device("cpu"))
    held = torch.ones(100_000_000)
    assert peak_memory_bytes(torch.device("cpu")) - before > 200_000_000
    assert len(held)
