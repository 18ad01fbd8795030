"""What there is: backbones, attention modules, datasets, templates. Torch-free: it is read from what specs may say."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cbam_core.attention.options import Options
from cbam_core.attention.registry import VARIANTS
from cbam_core.backbones import (
    BACKBONES,
    BASIC_RESNETS,
    BOTTLENECK_RESNETS,
    CIFAR_RESNETS,
    MOBILENETS,
    WITH_PUBLISHED_WEIGHTS,
    WITH_STEM,
    stage_count,
)
from cbam_core.papers import Paper

_RESNET = Paper.arxiv("1512.03385", 2016, "He et al.", "Deep Residual Learning for Image Recognition")
_WIDE = Paper.arxiv("1605.07146", 2016, "Zagoruyko and Komodakis", "Wide Residual Networks")
_RESNEXT = Paper.arxiv("1611.05431", 2017, "Xie et al.", "Aggregated Residual Transformations for Deep Neural Networks")
_MOBILENET = Paper.arxiv(
    "1704.04861", 2017, "Howard et al.", "MobileNets: Efficient CNNs for Mobile Vision Applications"
)


@dataclass(frozen=True)
class Backbone:
    """A network that a spec may name."""

    name: str
    family: str
    paper: Paper
    stages: int
    stems: tuple[str, ...]
    pretrained: bool
    fields: tuple[str, ...]  # of `model`, which this backbone knows beside those that all know


@dataclass(frozen=True)
class AttentionModule:
    """A kind of attention that a spec may name."""

    type: str
    title: str
    paper: Paper | None
    placement: str
    options: Mapping[str, Any]  # JSON schema


def backbones() -> list[Backbone]:
    """Every backbone that is named without timm's help."""
    return [_backbone(name) for name in BACKBONES]


def _backbone(name: str) -> Backbone:
    families = {
        "resnet": (_RESNET, ("resnet",)),
        "wide resnet": (_WIDE, ("wrn",)),
        "resnext": (_RESNEXT, ("resnext",)),
        "mobilenet": (_MOBILENET, MOBILENETS),
        "cifar resnet": (_RESNET, CIFAR_RESNETS),
    }
    family = next(family for family, (_, starts) in families.items() if name.startswith(starts))
    known = {"stem": WITH_STEM, "stride_in_1x1": BOTTLENECK_RESNETS, "width": MOBILENETS}
    assert name in BASIC_RESNETS + BOTTLENECK_RESNETS + CIFAR_RESNETS + MOBILENETS
    return Backbone(
        name=name,
        family=family,
        paper=families[family][0],
        stages=stage_count(name) or 0,
        stems=("imagenet", "cifar") if name in WITH_STEM else (),
        pretrained=name in WITH_PUBLISHED_WEIGHTS,
        fields=tuple(field for field, names in known.items() if name in names),
    )


@cache
def attention_modules() -> tuple[AttentionModule, ...]:
    """Every kind of attention, with the schema of its options."""
    return tuple(_module(name, kind) for name, kind in VARIANTS.items())


def _module(name: str, kind: type[Options]) -> AttentionModule:
    return AttentionModule(
        type=name,
        title=(kind.__doc__ or "").strip().splitlines()[0],
        paper=kind.paper,
        placement=kind.placement,
        options=kind.model_json_schema(),
    )
