"""What there is: backbones, attention modules, datasets, templates. Torch-free: it is read from what specs may say."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from cbam_core.attention.options import AttentionSpec, Options
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


@dataclass(frozen=True)
class Paper:
    """Where something was published."""

    title: str
    authors: str
    year: int
    url: str


def _arxiv(number: str, year: int, authors: str, title: str) -> Paper:
    return Paper(title, authors, year, f"https://arxiv.org/abs/{number}")


ATTENTION_PAPERS: dict[str, Paper] = {
    "cbam": _arxiv("1807.06521", 2018, "Woo et al.", "CBAM: Convolutional Block Attention Module"),
    "se": _arxiv("1709.01507", 2018, "Hu et al.", "Squeeze-and-Excitation Networks"),
    "eca": _arxiv("1910.03151", 2020, "Wang et al.", "ECA-Net: Efficient Channel Attention"),
    "bam": _arxiv("1807.06514", 2018, "Park et al.", "BAM: Bottleneck Attention Module"),
    "scse": _arxiv("1803.02579", 2018, "Roy et al.", "Concurrent Spatial and Channel Squeeze & Excitation"),
    "simam": Paper(
        "SimAM: A Simple, Parameter-Free Attention Module",
        "Yang et al.",
        2021,
        "https://proceedings.mlr.press/v139/yang21o.html",
    ),
    "coordinate": _arxiv("2103.02907", 2021, "Hou et al.", "Coordinate Attention for Efficient Mobile Network Design"),
    "triplet": _arxiv("2010.03045", 2021, "Misra et al.", "Rotate to Attend: Convolutional Triplet Attention Module"),
    "gct": _arxiv("1909.11519", 2020, "Yang et al.", "Gated Channel Transformation for Visual Recognition"),
    "global_context": _arxiv("1904.11492", 2019, "Cao et al.", "GCNet: Non-local Networks Meet SE Networks and Beyond"),
}
_RESNET = _arxiv("1512.03385", 2016, "He et al.", "Deep Residual Learning for Image Recognition")
_WIDE = _arxiv("1605.07146", 2016, "Zagoruyko and Komodakis", "Wide Residual Networks")
_RESNEXT = _arxiv("1611.05431", 2017, "Xie et al.", "Aggregated Residual Transformations for Deep Neural Networks")
_MOBILENET = _arxiv("1704.04861", 2017, "Howard et al.", "MobileNets: Efficient CNNs for Mobile Vision Applications")


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
    kinds: tuple[type[Options], ...] = get_args(get_args(AttentionSpec)[0])
    return tuple(_module(kind) for kind in kinds)


def _module(kind: type[Options]) -> AttentionModule:
    name = str(kind.model_fields["type"].default)
    return AttentionModule(
        type=name,
        title=(kind.__doc__ or "").strip().splitlines()[0],
        paper=ATTENTION_PAPERS.get(name),
        placement=kind.placement,
        options=kind.model_json_schema(),
    )
