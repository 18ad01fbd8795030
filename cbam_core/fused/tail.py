"""Where the fused residual tail applies, and its call from the modules whose weights it uses.

A CBAM is `Any` here: `cbam_core.attention` imports this package, not the other way round.
"""

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from cbam_core.attention.options import LARGEST_FUSED_KERNEL
from cbam_core.errors import SpecError

MOST_CHANNELS = 4096
"""One program holds a place's channels in registers; beyond, they would spill."""
_TORCH = tuple(map(int, torch.__version__.split(".")[:2]))
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_LARGEST_OFFSET = 2**31
_MOST_PLACES = 65_535 * 256  # of one image: programs along the second axis of a grid, times plan.MAP_ROWS
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _missing() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if "CC" not in os.environ and not any(map(shutil.which, ("gcc", "clang", "cc"))):
        return "Triton needs a C compiler, and there is none"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "Triton needs the headers of Python, and they are not installed"
    return None


_MISSING = _missing()  # at import: torch.compile cannot look for programs while it traces


def unavailable(device: torch.device) -> str | None:
    """Return why no fused kernel runs on `device`, or None."""
    if device.type != "cuda":
        return f"it runs on CUDA devices, not on {device.type}"
    if _MISSING is None and not torch.compiler.is_compiling():
        return _too_old(device.index)
    return _MISSING


@lru_cache
def _too_old(index: int | None) -> str | None:
    """Return why the GPU of this index cannot run the kernels; their products are Ampere's."""
    if not torch.cuda.is_available():
        return "there is no GPU"
    if torch.version.hip is not None:
        return "it has not been tried on AMD's GPUs"
    major, minor = torch.cuda.get_device_capability(index)
    return None if major >= 8 else f"the GPU's compute capability is {major}.{minor}, below 8.0"


def unsupported(cbam: Any) -> str | None:
    """Return which choice of a CBAM has no fused kernel, or None."""
    if cbam.order != "channel_spatial":
        return f"order is {cbam.order}, not channel_spatial"
    if not cbam.unmodified:
        return "it, or a part of it, is of another class than CBAM's own"
    channel, spatial = cbam.channel, cbam.spatial
    if channel.pool_names != ("avg", "max") or spatial.pools != ("max", "avg"):
        return "both gates must pool by avg and max"
    if channel.activation is not torch.sigmoid or spatial.activation is not torch.sigmoid:
        return "its gates are not sigmoids"
    if spatial.norm is not None and not _is_fusable(spatial.norm):
        return "the norm of the spatial gate is not a plain BatchNorm2d"
    return _changed(channel.fc1, channel.fc2, spatial.conv) or _too_large(channel.fc1, channel.fc2, spatial.conv)


def _changed(fc1: nn.Module, fc2: nn.Module, convolution: nn.Module) -> str | None:
    """Return which layer is not what CBAM makes, by a parametrization (a class of its own) or put in by a user."""
    if type(fc1) is not nn.Linear or type(fc2) is not nn.Linear or type(convolution) is not nn.Conv2d:
        return "a layer of its gates is of another class than CBAM's own"
    side, c = convolution.kernel_size[0], fc1.in_features
    given = (convolution.kernel_size, convolution.padding, convolution.stride, convolution.dilation, convolution.bias)
    own = ((side, side), (side // 2, side // 2), (1, 1), (1, 1), None)
    if given != own or convolution.weight.shape[:2] != (1, 2) or convolution.padding_mode != "zeros":
        return "the convolution of the spatial gate is not CBAM's own"
    if not _is_dense(convolution.weight):
        return "the weight of its convolution is laid out in another way"
    if (fc2.in_features, fc2.out_features) != (fc1.out_features, c) or (fc1.bias is None) != (fc2.bias is None):
        return "the layers of its MLP do not fit each other as CBAM's own do"
    return None


def _is_dense(weight: Tensor) -> bool:
    return weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last)


def _too_large(fc1: nn.Linear, fc2: nn.Linear, convolution: nn.Conv2d) -> str | None:
    if convolution.kernel_size[0] > LARGEST_FUSED_KERNEL:
        return f"kernel_size is {convolution.kernel_size[0]}, above {LARGEST_FUSED_KERNEL}"
    if fc1.in_features > MOST_CHANNELS:
        return f"it has {fc1.in_features} channels, more than {MOST_CHANNELS}"
    if not (fc1.weight.is_contiguous() and fc2.weight.is_contiguous()):
        return "the weights of its MLP are not contiguous"
    return None


def refusal(cbam: Any, norm: nn.Module | None, x: Tensor, shortcut: Tensor) -> str | None:
    """Return why relu(cbam(norm(x)) + shortcut) cannot run fused, or None. x and shortcut are N C H W."""
    return (
        unavailable(x.device)
        or unsupported(cbam)
        or _unfit(x, shortcut)
        or _unfit_for(cbam, norm if norm is not None and _is_fusable(norm) else None, x)
        or _watched(cbam, norm)
        or _traced(x)
    )


def _unfit(x: Tensor, shortcut: Tensor) -> str | None:
    if x.dtype not in _DTYPES or shortcut.dtype != x.dtype or shortcut.shape != x.shape or shortcut.device != x.device:
        return "x and shortcut must have one shape, and one type of fp32, bf16 and fp16, on one device"
    if x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return "the feature map is not in channels_last"
    n, c, height, width = x.shape
    places = height * width
    if max(places * c, n * places, 4 * n * c) >= _LARGEST_OFFSET or places > _MOST_PLACES:
        return "the feature map is too large for offsets of 32 bits"
    return None


def _unfit_for(cbam: Any, norm: Any, x: Tensor) -> str | None:
    """Return what does not fit the modules' weights, which the kernels read without a question."""
    channels, gate_norm = x.shape[1], cbam.spatial.norm
    norms = [(one, size) for one, size in ((norm, channels), (gate_norm, 1)) if one is not None]
    if cbam.channel.fc1.in_features != channels or any(one.num_features != size for one, size in norms):
        return f"its weights are not of {channels} channels"
    if x.numel() == 0 or (x.numel() == channels and any(one.training for one, _ in norms)):
        return "there are no statistics of so few values"
    vectors = [vector for one, _ in norms for vector in (one.weight, one.bias, one.running_mean, one.running_var)]
    vectors += [bias for bias in (cbam.channel.fc1.bias, cbam.channel.fc2.bias) if bias is not None]
    matrices = [cbam.channel.fc1.weight, cbam.channel.fc2.weight, cbam.spatial.conv.weight]
    if any(not vector.is_contiguous() for vector in vectors) or any(w.device != x.device for w in vectors + matrices):
        return "its weights are laid out in another way, or lie on another device"
    return None


def _watched(cbam: Any, norm: nn.Module | None) -> str | None:
    """Return who wants to see the modules run one by one."""
    channel, spatial = cbam.channel, cbam.spatial
    inner = (cbam, channel, channel.fc1, channel.fc2, spatial, spatial.conv, spatial.norm, norm)
    modules = [module for module in inner if module is not None]
    if any(len(getattr(module, hooks)) for module in modules for hooks in _HOOKS):
        return "hooks are registered on its modules"
    if torch.compiler.is_compiling():
        return None
    if any("forward" in vars(module) or "gate" in vars(module) for module in modules):
        return "a method of its modules has been replaced"
    return "hooks are registered on all modules" if torch.nn.modules.module._has_any_global_hook() else None


def _traced(x: Tensor) -> str | None:
    """Return who looks into PyTorch's operators and cannot look into this one."""
    if _is_exported():
        return "an exported program consists of PyTorch's own operators"
    if torch.compiler.is_compiling():
        return None
    if type(x) not in (Tensor, nn.Parameter) or torch._C._len_torch_dispatch_stack():
        return "a subclass of tensors or a mode of dispatch sees PyTorch's own operators only"
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return "torch.func and forward-mode differentiation know PyTorch's own operators only"
    return None


def residual(cbam: Any, x: Tensor, shortcut: Tensor, norm: nn.Module | None = None) -> Tensor:
    """Compute relu(cbam(norm(x)) + shortcut), N C H W, with the fused operator; only where `refusal` is None.

    Running statistics move as the modules' own forward passes would move them. A norm that is not a plain BatchNorm2d
    runs by itself before the operator.
    """
    if norm is not None and not _is_fusable(norm):
        x, norm = norm(x), None
        if refusal(cbam, None, x, shortcut) is not None:  # it may return another layout or type
            plain: Tensor = torch.relu_(cbam(x) + shortcut)
            return plain
    shortcut = shortcut.contiguous(memory_format=torch.channels_last)
    run = _operate if torch.compiler.is_compiling() else _call
    return run(cbam, x, shortcut, norm)


def _call(cbam: Any, x: Tensor, shortcut: Tensor, norm: Any) -> Tensor:
    """By the autograd function, whose kernels move the running statistics."""
    from cbam_core.fused.operator import ResidualTail  # loads Triton
    from cbam_core.fused.plan import Weights, case_of

    channel, convolution, gate_norm = cbam.channel, cbam.spatial.conv.weight, cbam.spatial.norm
    fc1, fc2 = channel.fc1, channel.fc2
    mlp = (fc1.weight, fc1.bias, fc2.weight, fc2.bias)
    weights = Weights._make((*_all_of(norm), *mlp, convolution, *_all_of(gate_norm)))
    case = case_of(
        x,
        weights,
        track=(norm is not None and norm.training, gate_norm is not None and gate_norm.training),
        eps=(0.0 if norm is None else norm.eps, 0.0 if gate_norm is None else gate_norm.eps),
        momentum=(0.0 if norm is None else norm.momentum, 0.0 if gate_norm is None else gate_norm.momentum),
    )
    out: Tensor = ResidualTail.apply(case, x, shortcut, *weights)
    return out


def _operate(cbam: Any, x: Tensor, shortcut: Tensor, norm: Any) -> Tensor:
    """By the operator, after which the running statistics are moved here."""
    from cbam_core.fused.operator import residual_tail

    channel, gate_norm = cbam.channel, cbam.spatial.norm
    biases = [] if channel.fc1.bias is None else [channel.fc1.bias, channel.fc2.bias]
    out, kept = residual_tail(
        x,
        shortcut,
        _given_of(norm),
        [channel.fc1.weight, channel.fc2.weight, *biases],
        [cbam.spatial.conv.weight, *_given_of(gate_norm)],
        norm_eps=0.0 if norm is None else norm.eps,
        gate_eps=0.0 if gate_norm is None else gate_norm.eps,
    )
    result: Tensor = out
    channels, values = x.shape[1], x.numel() // x.shape[1]
    if norm is not None and norm.training:
        _track(norm, kept[:channels], kept[4 * channels : 5 * channels], values)
    if gate_norm is not None and gate_norm.training:
        _track(gate_norm, kept[-64:-63], kept[-60:-59], values)
    return result


def configure(network: nn.Module, mode: str, device: torch.device, *, channels_last: bool) -> str | None:
    """Set whether the CBAM modules of `network` may run fused (auto, on, off), and return why they do not, or None.

    Raises SpecError where the mode is `on` and they cannot.
    """
    modules: list[Any] = [module for module in network.modules() if hasattr(type(module), "unmodified")]
    reasons: Iterator[str | None] = (unsupported(module) for module in modules)
    reason = (
        "train.fused is off" if mode == "off"
        else unavailable(device)
        or ("the network has no CBAM" if not modules else None)
        or ("train.channels_last is off" if not channels_last else None)
        or next(filter(None, reasons), None)
    )  # fmt: skip
    if mode == "on" and reason is not None:
        raise SpecError(f"train.fused is on, but {reason}")
    for module in modules:
        module.fused = mode if reason is None else "off"
    return reason


def _is_exported() -> bool:
    if torch.compiler.is_dynamo_compiling() and _TORCH < (2, 12):  # which answers the other two with yes
        return False
    return torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None


def _is_fusable(norm: nn.Module) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.running_mean is not None
        and norm.running_var is not None
        and norm.momentum is not None
    )


def _all_of(norm: Any) -> list[Any]:
    if norm is None:
        return [None] * 5
    return [norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.num_batches_tracked]


def _given_of(norm: Any) -> list[Tensor]:
    if norm is None:
        return []
    running = [] if norm.training else [norm.running_mean, norm.running_var]
    return [norm.weight, norm.bias, *running]


@torch.no_grad()
def _track(norm: Any, mean: Tensor, variance: Tensor, values: int) -> None:
    """Move the running statistics as BatchNorm2d does: the variance that is kept is the unbiased one."""
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_((variance * (values / (values - 1))).to(norm.running_var.dtype), norm.momentum)
