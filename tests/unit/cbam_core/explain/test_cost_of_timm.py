"""What networks of timm's cost: every weight is in a row of the table, and every convolution is counted."""

import pytest
import timm
import torch
from timm.layers.cond_conv2d import CondConv2d
from torch.utils.flop_counter import FlopCounterMode

from cbam_core.explain import describe


@pytest.mark.parametrize(
    "name", ["hrnet_w18_small", "tf_efficientnet_cc_b0_4e", "resnet18", "convnext_atto", "densenet121", "inception_v3"]
)
def test_the_rows_hold_every_weight_and_every_convolution(name):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=10).eval()
    described = describe(network, (3, 96, 96))
    assert sum(stage.parameters for stage in described.stages) == described.parameters
    assert sum(stage.macs for stage in described.stages) == described.macs
    assert sum(stage.activations for stage in described.stages) == described.activations
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, 96, 96, device="meta"))
    counts = counter.get_flop_counts()["Global"]
    convolutions = sum(count for operator, count in counts.items() if "convolution" in str(operator))
    assert described.macs >= convolutions // 2
    assert described.macs <= described.torch_flops // 2


def test_a_mixture_of_experts_is_one_convolution():
    """Five experts, one image: 2×3×3×3 weights of the mixture at each place, whoever it is mixed from."""
    convolution = CondConv2d(4, 6, 3, groups=2, padding="same", num_experts=5)
    convolution.register_forward_pre_hook(lambda _module, inputs: (inputs[0], torch.ones(1, 5)))
    described = describe(torch.nn.Sequential(convolution), (4, 8, 7))
    assert described.macs == 8 * 7 * 6 * 2 * 3 * 3
    assert described.activations == 8 * 7 * 6
