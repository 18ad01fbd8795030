import pytest
import torch

from workers.train.throughput import Throughput
from workers.train.utilization import model_flops_utilisation, peak_flops, peak_memory_bytes, reset_peak_memory


def test_the_first_step_does_not_count():
    pace = Throughput(images_per_step=100)
    pace.step_took(60.0, 50.0)
    assert pace.images_per_second is None
    assert pace.eta_seconds(10, 1, 4) is None
    assert pace.metrics() == {}
    for _ in range(4):
        pace.step_took(0.5, 0.1)
    assert pace.metrics() == {"images_per_second": 200.0, "data_wait_share": pytest.approx(0.2)}


def test_the_eta_counts_steps_and_evaluations():
    pace = Throughput(images_per_step=100)
    for _ in range(3):
        pace.step_took(0.5, 0.0)
    assert pace.eta_seconds(10, 2, 6) == pytest.approx(10 * 0.5 + 2 * 6 * 0.5 / 3)
    pace.evaluation_took(3.0)
    assert pace.eta_seconds(10, 2, 6) == pytest.approx(10 * 0.5 + 2 * 3.0)


def test_what_the_device_has_still_to_do_belongs_to_its_steps():
    pace = Throughput(images_per_step=100)
    pace.step_took(60.0, 50.0)
    pace.steps_took_longer(1.0)
    assert pace.images_per_second is None, "the first step does not count, whatever is left of it"
    for _ in range(4):
        pace.step_took(0.1, 0.05)
    pace.steps_took_longer(1.6)
    assert pace.images_per_second == pace.mean_images_per_second == pytest.approx(200.0)
    assert pace.data_wait_share == pytest.approx(0.1)
    assert pace.eta_seconds(10, 0, 4) == pytest.approx(5.0)


def test_a_step_counts_once_the_device_has_done_it():
    """Given in 0.01 s to an idle device that takes half a second for each: the first of them is not finished yet."""
    pace = Throughput(images_per_step=100)
    pace.step_took(60.0, 50.0)
    pace.step_took(0.01, 0.0, finished=0)
    assert pace.images_per_second is None
    assert pace.mean_images_per_second is None
    assert pace.eta_seconds(10, 0, 4) is None
    for _ in range(3):
        pace.step_took(0.5, 0.0, finished=1)
        assert pace.images_per_second == pytest.approx(200.0, rel=0.03)
    pace.steps_took_longer(0.49, finished=1)
    assert pace.images_per_second == pace.mean_images_per_second == pytest.approx(200.0)


def test_utilisation_of_a_known_device():
    """ResNet-50 is 4.1 GMAC an image; 1,000 images/s of training are 24.6 TFLOP/s."""
    assert model_flops_utilisation(4_100_000_000, 1000, 312e12) == pytest.approx(24.6 / 312)
    assert peak_flops(torch.device("cpu"), "bf16", 1) is None


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", None),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA T400 4GB", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),
        ("Tesla V100-SXM2-16GB", None),
        ("Tesla T4", None),
    ],
)
def test_the_peak_is_that_of_the_whole_name(name, teraflops, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: name)
    two = peak_flops(torch.device("cuda", 0), "bf16", 2)
    assert two == (None if teraflops is None else pytest.approx(2 * teraflops * 1e12))


@pytest.mark.parametrize(
    ("name", "teraflops"), [("Tesla V100-SXM2-16GB", 125), ("Tesla V100-PCIE-16GB", 112), ("Tesla T4", 65)]
)
def test_older_tensor_cores_have_a_peak_in_fp16_alone(name, teraflops, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: name)
    peaks = {precision: peak_flops(torch.device("cuda", 0), precision, 1) for precision in ("fp16", "bf16", "fp32")}
    assert peaks == {"fp16": pytest.approx(teraflops * 1e12), "bf16": None, "fp32": None}


def test_peak_memory_grows_with_what_is_held():
    reset_peak_memory(torch.device("cpu"))  # tests before this one may have taken more
    before = peak_memory_bytes(torch.device("cpu"))
    held = torch.ones(100_000_000)
    assert peak_memory_bytes(torch.device("cpu")) - before > 200_000_000
    assert len(held)
