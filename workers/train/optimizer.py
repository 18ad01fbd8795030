"""The optimiser of the spec, and the learning rate of every step as a pure function."""

import math

import torch
from torch import nn

from cbam_core.spec import AdamWSpec, CosineSchedule, ScheduleSpec, SGDSpec, StepSchedule


def build_optimizer(spec: SGDSpec | AdamWSpec, network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over all weights of `network`."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    if isinstance(spec, SGDSpec):
        return torch.optim.SGD(weights, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay)
    return torch.optim.AdamW(weights, lr=spec.lr, betas=spec.betas, weight_decay=spec.weight_decay)


def learning_rate(schedule: ScheduleSpec, peak: float, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """The rate of optimiser step `step`, counted from 0.

    The warm-up rises linearly and reaches `peak` with its last step; the schedule then runs as if it had started there.
    """
    warmup_steps = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    match schedule:
        case StepSchedule():
            return peak * schedule.gamma ** (step // steps_per_epoch // schedule.step_epochs)
        case CosineSchedule():
            done = (step - warmup_steps) / (epochs * steps_per_epoch - warmup_steps)
            return schedule.min_lr + (peak - schedule.min_lr) * (1 + math.cos(math.pi * done)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
