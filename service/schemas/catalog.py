"""What the catalogue answers: backbones, attention modules, datasets, templates."""

from typing import Any

from pydantic import Field

from service.schemas.base import View


class PaperView(View):
    """Where it was published."""

    title: str
    authors: str
    year: int
    url: str


class BackboneView(View):
    """A network that a spec may name as `model.backbone`."""

    name: str
    family: str
    paper: PaperView
    stages: int = Field(description="groups of blocks at one resolution, where attention may stand")
    stems: list[str] = Field(description="what `model.stem` may be; empty where it has one of its own")
    pretrained: bool = Field(description="whether `model.pretrained` finds published ImageNet weights")
    fields: list[str] = Field(description="further fields of `model` that mean something to it")


class BackboneList(View):
    """The networks, and how others are named."""

    items: list[BackboneView]
    timm: str = Field(description="how a convolutional network of timm's is named")


class AttentionView(View):
    """A kind of attention that a spec may name as `model.attention.type`."""

    type: str
    title: str
    paper: PaperView | None
    placement: str = Field(description="block: at the end of every residual branch; stage: between the stages")
    options: dict[str, Any] = Field(description="JSON schema of `model.attention` of this type")


class AttentionList(View):
    """The kinds of attention."""

    items: list[AttentionView]


class DatasetView(View):
    """A dataset that a spec may name as `data.dataset`; null is what its folder decides."""

    name: str
    title: str
    classes: int | None
    channels: int
    train_images: int | None
    test_images: int | None
    needs_root: bool = Field(description="whether `data.root` must say where it is")


class DatasetList(View):
    """The datasets, and where they may be read from."""

    items: list[DatasetView]
    data_roots: list[str] = Field(description="`data.root` must be below one of these")


class TemplateView(View):
    """A spec that comes with the service: submit it as `{"template": name, "overrides": {…}}`."""

    name: str
    description: str
    spec: dict[str, Any] = Field(description="as it is written; what is left out has its default")


class TemplateList(View):
    """The templates."""

    items: list[TemplateView]
