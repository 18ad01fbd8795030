"""The backbones a spec may name, and what may be said about each. Torch-free; the builders are in their own files."""

import re

BASIC_RESNETS = ("resnet18", "resnet34", "wrn18_1_5", "wrn18_2")
BOTTLENECK_RESNETS = ("resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x4d")
CIFAR_RESNETS = ("cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56", "cifar_resnet110")
MOBILENETS = ("mobilenet_v1",)
BACKBONES = (*BASIC_RESNETS, *BOTTLENECK_RESNETS, *MOBILENETS, *CIFAR_RESNETS)

WITH_STEM = frozenset((*BASIC_RESNETS, *BOTTLENECK_RESNETS, *MOBILENETS))
"""Backbones with a choice of stem; the others have one of their own."""

WITH_PUBLISHED_WEIGHTS = frozenset(("resnet18", "resnet34", *BOTTLENECK_RESNETS))
"""Backbones whose ImageNet weights timm offers under the same name."""

TIMM_PREFIX = "timm:"
_TIMM_NAME = re.compile(r"timm:[a-z0-9_]+(\.[a-z0-9_]+)?")


def is_timm(backbone: str) -> bool:
    """Whether `backbone` asks timm for a network, as in `timm:convnext_tiny` or `timm:resnet50.a1_in1k`."""
    return _TIMM_NAME.fullmatch(backbone) is not None


def stage_count(backbone: str) -> int | None:
    """How many stages (groups of blocks at one resolution) `backbone` has; None where only timm knows."""
    if is_timm(backbone):
        return None
    return {MOBILENETS[0]: 5, **dict.fromkeys(CIFAR_RESNETS, 3)}.get(backbone, 4)
