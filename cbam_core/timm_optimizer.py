"""Builds the optimisers of timm's that a spec names; which there are, and what they take, is in `timm_options`."""

from typing import Any

import torch
from torch import nn

from cbam_core.errors import SpecError
from cbam_core.timm_options import TimmOptimizerSpec

_TRIAL_SHAPES = ((3, 2, 3, 3), (4, 3), (4,), ())
_TIMM_MOMENTUM = 0.9  # what timm's factory gives to those that its registry says to have one


def build_timm_optimizer(spec: TimmOptimizerSpec, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser over groups of weights. Raises SpecError where it does not take the values of its options."""
    check_timm_optimizer(spec)
    return _build(spec, groups)


def check_timm_optimizer(spec: TimmOptimizerSpec) -> None:
    """Try the options on a few small weights, for two steps. Raises SpecError with what the optimiser says.

    timm's check some of their arguments, and fail at the first step over others.
    """
    weights = [nn.Parameter(torch.ones(shape, device="cpu")) for shape in _TRIAL_SHAPES]
    try:
        optimizer = _build(spec, [{"params": weights}])
        for _ in range(2):
            for weight in weights:
                weight.grad = torch.ones_like(weight)
            optimizer.step()
    except Exception as error:  # whatever a class says of an argument that makes no sense to it
        given = ", ".join(f"{name}={value!r}" for name, value in _arguments(spec).items())
        raise SpecError(f"{spec.type} cannot train with {given}: {error}") from error


def _build(spec: TimmOptimizerSpec, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """As timm's factory does, which itself drops a momentum or betas that an optimiser does not take."""
    from timm.optim import get_optimizer_class, get_optimizer_info

    arguments = _arguments(spec)
    if get_optimizer_info(spec.name).has_momentum:
        arguments.setdefault("momentum", _TIMM_MOMENTUM)
    optimizer: torch.optim.Optimizer = get_optimizer_class(spec.name)(groups, **arguments)
    return optimizer


def _arguments(spec: TimmOptimizerSpec) -> dict[str, Any]:
    momentum = {} if spec.momentum is None else {"momentum": spec.momentum}
    return {"lr": spec.lr, "weight_decay": spec.weight_decay, **momentum, **spec.options}
