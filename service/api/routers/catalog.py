"""What there is to choose from."""

from typing import Annotated

from fastapi import APIRouter, Path

from cbam_core.backbones import TIMM_PREFIX
from cbam_core.datasets import DATASETS
from service.api.deps import GUARDED, SettingsDep
from service.api.problems import documented
from service.errors import TemplateNotFound
from service.experiments import catalog
from service.experiments.templates import Template
from service.experiments.templates import templates as all_templates
from service.schemas.catalog import (
    AttentionList,
    AttentionView,
    BackboneList,
    BackboneView,
    DatasetList,
    DatasetView,
    TemplateList,
    TemplateView,
)

router = APIRouter(prefix="/v1", tags=["catalogue"], dependencies=GUARDED, responses=documented(401, 403))


@router.get("/models")
def models() -> BackboneList:
    """List the backbones."""
    items = [BackboneView.model_validate(backbone) for backbone in catalog.backbones()]
    return BackboneList(items=items, timm=f"{TIMM_PREFIX}<name>, as {TIMM_PREFIX}convnext_tiny")


@router.get("/attentions")
def attentions() -> AttentionList:
    """List the kinds of attention, with the options of each and the paper it comes from."""
    return AttentionList(items=[AttentionView.model_validate(module) for module in catalog.attention_modules()])


@router.get("/datasets")
def datasets(settings: SettingsDep) -> DatasetList:
    """List the datasets, and the folders that they may be read from."""
    items = [
        DatasetView(
            name=name, **{field: getattr(facts, field) for field in DatasetView.model_fields if field != "name"}
        )
        for name, facts in DATASETS.items()
    ]
    return DatasetList(items=items, data_roots=[str(root) for root in settings.data_roots])


@router.get("/templates")
def templates() -> TemplateList:
    """List the specs that come with the service: small ones to begin with, and those of the paper."""
    return TemplateList(items=[_shown(template) for template in all_templates().values()])


@router.get("/templates/{name:path}", responses=documented(404, 422))
def template(
    name: Annotated[str, Path(min_length=1, max_length=256, examples=["digits-cbam"])],
) -> TemplateView:
    """Show one template. The name may hold slashes, as `paper/resnet50-cbam`."""
    found = all_templates().get(name)
    if found is None:
        raise TemplateNotFound(f"there is no template {name!r}")
    return _shown(found)


def _shown(found: Template) -> TemplateView:
    return TemplateView(name=found.name, description=found.description, spec=dict(found.fields))
