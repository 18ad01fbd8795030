"""The optimiser of the spec, and the learning rate of every step as a pure function."""

import math
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
)


def build_optimizer(spec: OptimizerSpec, network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over all weights of `network`; LAMB is timm's, without the clipping of its own (see clip_norm)."""
    groups = weight_groups(spec, network)
    match spec:
        case SGDSpec():
            return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov)
        case AdamWSpec():
            return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas)
        case LambSpec():
            return _lamb(spec, groups)


def _lamb(spec: LambSpec, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    from timm.optim import create_optimizer_v2

    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        groups, "lamb", lr=spec.lr, betas=spec.betas, max_grad_norm=None
    )
    return optimizer


def weight_groups(spec: OptimizerSpec, network: nn.Module) -> list[dict[str, Any]]:
    """All weights with the spec's decay; or, where it says so, vectors and scalars (norms, biases) without any."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
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
    """Use `rate` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
