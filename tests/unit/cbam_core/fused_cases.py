"""Feature maps, modules and a reference in fp64 for the tests of the fused residual tail, on CPU and GPU."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cbam_core.attention import CBAM


@dataclass
class Tail:
    """A CBAM, the norm before it (or None), the map that goes in, the shortcut, and the gradient that comes back."""

    cbam: CBAM
    norm: nn.BatchNorm2d | None
    z: Tensor
    shortcut: Tensor
    gradient: Tensor

    def copy(self, *, dtype: torch.dtype | None = None, fused: str = "off") -> "Tail":
        """Modules of their own, weights and maps in `dtype` where one is given."""
        other = copy.deepcopy(self)
        if dtype is not None:
            other.cbam.to(dtype)
            if other.norm is not None:
                other.norm.to(dtype)
            other.z, other.shortcut, other.gradient = (
                tensor.to(dtype) for tensor in (other.z, other.shortcut, other.gradient)
            )
        other.cbam.fused = fused
        return other


def make_tail(
    shape: tuple[int, int, int, int],
    *,
    norm: bool = True,
    training: bool = True,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    **options: Any,
) -> Tail:
    """Random weights everywhere, also where they start at 0, so that nothing hides; both signs of the norm's weight."""
    channels = shape[1]
    cbam = CBAM(channels, options.pop("reduction", 4 if channels >= 16 else 2), **options)
    batch_norm = nn.BatchNorm2d(channels)
    for module in (cbam, batch_norm):
        for parameter in module.parameters():
            nn.init.normal_(parameter, 0, 0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("mean"):
                nn.init.normal_(buffer)
            elif name.endswith("var"):
                nn.init.uniform_(buffer, 0.5, 2.0)
        module.train(training).to(device)
    z, shortcut, gradient = (
        tensor.to(device, dtype).contiguous(memory_format=torch.channels_last)
        for tensor in (torch.randn(shape) * 2 + 1, torch.randn(shape), torch.randn(shape))
    )
    return Tail(cbam, batch_norm if norm else None, z, shortcut, gradient)


def run(tail: Tail, call: Any = None) -> dict[str, Tensor]:
    """Result, all gradients, and all running statistics after one forward and backward pass, by name."""
    z, shortcut = (tensor.detach().clone().requires_grad_() for tensor in (tail.z, tail.shortcut))
    out = call(tail.cbam, z, shortcut, tail.norm) if call else tail.cbam.residual(z, shortcut, tail.norm)
    out.backward(tail.gradient)
    found: dict[str, Tensor] = {"out": out.detach(), "z": z.grad, "shortcut": shortcut.grad}  # type: ignore[dict-item]
    for prefix, module in (("cbam", tail.cbam), ("norm", tail.norm)):
        if module is not None:
            found |= {f"{prefix}.{name}": parameter.grad for name, parameter in module.named_parameters()}
            found |= {f"{prefix}.{name}": buffer for name, buffer in module.named_buffers()}
    return found


def errors(found: dict[str, Tensor], reference: dict[str, Tensor]) -> dict[str, float]:
    """||found - reference|| / ||reference||, by name; every name of the reference must be there."""
    assert found.keys() == reference.keys()
    pairs = {name: (found[name].double(), value.double()) for name, value in reference.items()}
    return {
        name: ((mine - theirs).norm() / theirs.norm().clamp(min=1e-9)).item() for name, (mine, theirs) in pairs.items()
    }
