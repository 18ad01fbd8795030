"""The fused residual tail on a GPU, against the plain modules in fp64 there."""

import shutil

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cbam_core import fused
from cbam_core.attention import CBAM
from cbam_core.networks import build_network
from cbam_core.networks.attach import residual
from cbam_core.spec import ModelSpec
from tests.unit.cbam_core.fused_cases import errors, make_tail, run

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or fused.unavailable(torch.device("cuda")) is not None,
    reason="needs a GPU and Triton",
)
SHAPES = [
    (8, 256, 56, 56),
    (16, 512, 28, 28),
    (16, 1024, 14, 14),
    (32, 2048, 7, 7),
    (128, 16, 32, 32),
    (5, 96, 9, 13),
    (1, 64, 20, 20),
    (3, 4096, 4, 4),
    (3, 16, 1, 1),
]


def gpu_tail(shape, **options):
    return make_tail(shape, device="cuda", reduction=max(1, shape[1] // 16), **options)


def in_fp64(case):
    """The plain modules, as exact as they can be."""
    reference = case.copy()
    reference.z, reference.shortcut, reference.gradient = (
        tensor.double() for tensor in (case.z, case.shortcut, case.gradient)
    )
    for module in (reference.cbam, reference.norm):
        if module is not None:
            module.double()
    return reference


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_fp32_is_as_exact_as_the_plain_modules(shape, training):
    case = gpu_tail(shape, training=training)
    truth = run(in_fp64(case))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        plain = errors(run(case.copy()), truth)
    found = errors(run(case.copy(fused="on")), truth)
    assert {name: error for name, error in found.items() if error > max(2e-5, 10 * plain[name])} == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_half_precision_is_nearer_to_fp64_than_the_plain_modules_under_autocast(shape, dtype):
    case = gpu_tail(shape, dtype=dtype)
    truth = run(in_fp64(case))
    with torch.autocast("cuda", dtype):
        plain, found = errors(run(case.copy()), truth), errors(run(case.copy(fused="on")), truth)
    rounding = 2**-8 if dtype == torch.bfloat16 else 2**-11
    assert {name: error for name, error in found.items() if error > max(rounding, plain[name])} == {}


def test_without_a_norm_with_other_options_and_with_a_small_kernel():
    for options in ({"norm": False}, {"kernel_size": 3, "mlp_bias": False}, {"spatial_norm": "none"}):
        case = gpu_tail((4, 64, 17, 17), **options)
        truth = run(in_fp64(case))
        assert max(errors(run(case.copy(fused="on")), truth).values()) < 1e-4


def test_bits_repeat_and_the_first_call_is_like_every_other():
    """The first launch goes by Triton, later ones straight to what it compiled. A slice may begin anywhere."""
    case = gpu_tail((6, 48, 11, 10), dtype=torch.bfloat16)
    runs = [run(case.copy(fused="on")) for _ in range(3)]
    assert all(torch.equal(value, other[name]) for other in runs[1:] for name, value in runs[0].items())
    flat = torch.empty(case.z.numel() + 1, dtype=case.z.dtype, device="cuda")[1:]
    moved = flat.as_strided(case.z.shape, case.z.stride()).copy_(case.z)
    assert moved.data_ptr() % 16
    case.z = moved
    z, shortcut = moved.requires_grad_(), case.shortcut.clone()
    out = case.cbam.residual(z, shortcut, case.norm)
    out.backward(case.gradient)
    assert torch.equal(out, runs[0]["out"])
    assert torch.equal(z.grad, runs[0]["z"])


def test_every_kernel_is_launched_by_the_driver_once_it_is_compiled():
    from cbam_core.fused import passes  # loads Triton
    from cbam_core.fused.launch import Launch

    plans = []

    def noted(make):
        return lambda case: plans.append(make(case)) or plans[-1]

    with pytest.MonkeyPatch.context() as patch:
        for name in ("forward_plan", "backward_plan"):
            patch.setattr(passes, name, noted(getattr(passes, name)))
        run(gpu_tail((2, 32, 9, 9), dtype=torch.float16).copy(fused="on"))
    launches = [value for plan in plans for value in vars(plan).values() if isinstance(value, Launch)]
    assert len(launches) == 18
    assert all(launch._direct is not None for launch in launches)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="torch.compile needs a C compiler")
@pytest.mark.filterwarnings("ignore")
def test_compiled_it_gives_the_same_bits_in_one_graph():
    case = gpu_tail((8, 64, 16, 16), dtype=torch.bfloat16)
    eager = run(case.copy(fused="on"))
    compiled = torch.compile(lambda cbam, z, shortcut, norm: residual(norm, cbam, z, shortcut), fullgraph=True)
    found = run(case.copy(fused="on"), compiled)
    assert all(torch.equal(value, found[name]) for name, value in eager.items() if "running" not in name)
    assert max(errors(found, eager).values()) < 1e-6


def test_it_is_recorded_in_a_cuda_graph():
    case = gpu_tail((8, 64, 16, 16), dtype=torch.bfloat16, training=False)
    case.cbam.fused = "on"
    with torch.no_grad():
        expected = case.cbam.residual(case.z, case.shortcut, case.norm)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            recorded = case.cbam.residual(case.z, case.shortcut, case.norm)
        recorded.zero_()
        graph.replay()
    assert torch.equal(recorded, expected)


def test_with_data_parallel_and_checkpointing_the_gradients_are_the_same(tmp_path):
    case = gpu_tail((8, 64, 16, 16), dtype=torch.bfloat16)
    expected = run(case.copy(fused="on"))

    def recomputed(cbam, z, shortcut, norm):
        return torch.utils.checkpoint.checkpoint(cbam.residual, z, shortcut, norm, use_reentrant=False)

    found = run(case.copy(fused="on"), recomputed)
    assert all(torch.equal(found[name], expected[name]) for name in ("out", "z", "cbam.channel.fc1.weight"))

    class Block(nn.Module):
        def __init__(self, cbam, norm):
            super().__init__()
            self.cbam, self.norm = cbam, norm

        def forward(self, z, shortcut):
            return self.cbam.residual(z, shortcut, self.norm)

    torch.distributed.init_process_group("nccl", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        copy = case.copy(fused="on")
        block = DistributedDataParallel(Block(copy.cbam, copy.norm), device_ids=[0], gradient_as_bucket_view=True)
        block(case.z, case.shortcut).backward(case.gradient)
        assert torch.equal(copy.cbam.channel.fc1.weight.grad, expected["cbam.channel.fc1.weight"])
        del block
    finally:
        torch.distributed.destroy_process_group()


def test_less_is_kept_for_the_backward_pass_than_by_the_plain_modules():
    def kept(fused):
        case = gpu_tail((32, 256, 28, 28), dtype=torch.bfloat16)
        case.cbam.fused = fused
        z = case.z.requires_grad_()
        with torch.autocast("cuda", torch.bfloat16):
            case.cbam.residual(z, case.shortcut, case.norm)  # workspaces are made once
            before = torch.cuda.memory_allocated()
            out = case.cbam.residual(z, case.shortcut, case.norm)
        return (torch.cuda.memory_allocated() - before) / out.nbytes

    assert kept("on") < 1.1
    assert kept("off") > 2


def test_a_network_in_channels_last_runs_fused_by_itself(monkeypatch):
    model = ModelSpec.model_validate({"backbone": "resnet18", "attention": {"type": "cbam"}})
    network = build_network(model, 10).cuda().to(memory_format=torch.channels_last)
    called, real = [], fused.residual
    monkeypatch.setattr(fused, "residual", lambda *given: called.append(given[0]) or real(*given))
    images = torch.randn(4, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last)
    with torch.autocast("cuda", torch.bfloat16):
        network(images).sum().backward()
    sites = [module for module in network.modules() if isinstance(module, CBAM)]
    assert len(called) == len(sites) == 8
    assert fused.configure(network, "off", torch.device("cuda"), channels_last=True) == "train.fused is off"
    network(images)
    assert len(called) == 8
