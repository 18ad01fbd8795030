"""The optimiser of the spec, and the learning rate of every step as a pure function."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from cbam_core.spec import (
    AdamWSpec,
    ConstantSchedule,
    CosineSchedule,
    LambSpec,
    MultistepSchedule,
    OptimizerSpec,
    ScheduleSpec,
    SGDSpec,
    StepSchedule,
    TimmOptimizerSpec,
)
from cbam_core.timm_optimizer import build_timm_optimizer

_IMPLEMENTATION = ("foreach", "fused")
"""What a parameter group says about the kernels that do its step."""


def build_optimizer(
    spec: OptimizerSpec, network: nn.Module, *, lr_scales: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser over all weights of `network` that learn, each with its factor of the learning rate, by name.

    Raises SpecError where one of timm's refuses its options.

    `lamb` is timm's without the clipping of its own (see clip_norm); `timm:lamb` has it.

    On a GPU, SGD and AdamW are torch's fused ones: a step is one kernel for many weights, and with a loss scaler (fp16)
    the kernel itself skips a step that overflows. timm's have no such kernel: with fp16 the scaler reads at every step
    whether it overflowed, and waits for the GPU.
    """
    groups, fused = weight_groups(spec, network, lr_scales), _is_on_gpu(network) or None
    match spec:
        case SGDSpec():
            optimizer = torch.optim.SGD(groups, spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, fused=fused)
            _start_momentum(optimizer)
            return optimizer
        case AdamWSpec():
            return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=fused)
        case LambSpec():
            return _lamb(spec, groups)
        case TimmOptimizerSpec():
            return build_timm_optimizer(spec, groups)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore a state, whichever kernels it was written by: those that `optimizer` was built with stay in use."""
    groups = [
        saved | {name: ours[name] for name in _IMPLEMENTATION if name in ours}
        for saved, ours in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict(state | {"param_groups": groups})
    if isinstance(optimizer, torch.optim.SGD):
        _start_momentum(optimizer)


def _start_momentum(optimizer: torch.optim.SGD) -> None:
    """Give a fused SGD a momentum of zero, from which its first step is what it is without any.

    By itself torch allocates the buffers at the first step and leaves it to the kernel to fill them, which it does not
    where the loss scaler skips that step: the next one would start from whatever the memory held.
    """
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"]:
            for weight in group["params"]:
                optimizer.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))


def _is_on_gpu(network: nn.Module) -> bool:
    return all(weight.is_cuda for weight in network.parameters())


def _lamb(spec: LambSpec, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    from timm.optim import create_optimizer_v2

    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        groups, "lamb", lr=spec.lr, betas=spec.betas, max_grad_norm=None
    )
    return optimizer


def weight_groups(
    spec: OptimizerSpec, network: nn.Module, lr_scales: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """All weights with the spec's decay; or, where it says so, vectors and scalars (norms, biases) without any.

    Weights that have different factors of the learning rate are in groups of their own, whose `lr_scale` they are.
    """
    weights = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
    scales = lr_scales or {}
    if all(scales.get(name, 1.0) == 1 for name, _ in weights):
        return _by_decay(spec, [weight for _, weight in weights])
    groups = []
    for scale in dict.fromkeys(scales[name] for name, _ in weights):
        of_scale = [weight for name, weight in weights if scales[name] == scale]
        groups += [group | {"lr_scale": scale} for group in _by_decay(spec, of_scale) if group["params"]]
    return groups


def _by_decay(spec: OptimizerSpec, weights: list[nn.Parameter]) -> list[dict[str, Any]]:
    if spec.decay_norms_and_biases:
        return [{"params": weights, "weight_decay": spec.weight_decay}]
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]


def learning_rate(schedule: ScheduleSpec, peak: float, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """The rate of optimiser step `step`, counted from 0.

    The warm-up rises linearly and reaches `peak` with its last step. The cosine begins behind it; steps and milestones
    count epochs from the beginning of the training.
    """
    warmup_steps = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    epoch = step // steps_per_epoch
    match schedule:
        case StepSchedule():
            return peak * schedule.gamma ** (epoch // schedule.step_epochs)
        case MultistepSchedule():
            return peak * schedule.gamma ** sum(epoch >= milestone for milestone in schedule.milestones)
        case CosineSchedule():
            done = (step - warmup_steps) / (epochs * steps_per_epoch - warmup_steps)
            return schedule.min_lr + (peak - schedule.min_lr) * (1 + math.cos(math.pi * done)) / 2
        case ConstantSchedule():
            return peak


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` from the next step on, in each group times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
