"""What a preview asks and tells of how a training begins: its weights file, what learns, and at which rates."""

from pathlib import Path

from cbam_core.datasets import DatasetFacts
from cbam_core.spec import ExperimentSpec
from service.preview.profiler import Measured, Question
from service.preview.recipe_checks import RecipeWarning
from service.schemas.previews import LrScaleView, WeightsView
from service.settings import Settings
from workers.protocol.initial_weights import locate

MOST_BYTES = 2 * 2**30
"""Of a weights file that a preview reads: it is in memory while it is."""
DEFAULT_CLASSES = 1000  # where only a folder knows that this server does not see


def question_of(spec: ExperimentSpec, facts: DatasetFacts, settings: Settings) -> Question:
    """What to measure. A weights file is looked at where it is seen, and the classes are known that its head is for."""
    weights: tuple[Path, tuple[str, ...]] | None = None
    if spec.model.weights is not None and facts.classes is not None:
        path, roots = locate(spec.model.weights, storage=settings.storage_root, data_roots=settings.data_roots)
        weights = (path, roots.folders) if _is_soon_read(path) else None
    return Question(
        model=spec.model,
        channels=facts.channels,
        classes=facts.classes or DEFAULT_CLASSES,
        image_size=spec.data.image_size,
        layer_decay=spec.train.layer_decay,
        attention_lr_scale=spec.train.attention_lr_scale,
        weights=weights,
    )


def _is_soon_read(path: Path) -> bool:
    try:
        return path.stat().st_size <= MOST_BYTES
    except OSError:  # it may be there for the workers
        return False


def not_looked_at(spec: ExperimentSpec, question: Question) -> list[RecipeWarning]:
    """A warning where a weights file is named, and whether it fits is not known yet."""
    if spec.model.weights is None or question.weights is not None:
        return []
    detail = f"whether {spec.model.weights.source} fits is not seen from this server: the workers will find out"
    return [RecipeWarning("/model/weights", "weights_not_seen", detail)]


def weights_view(measured: Measured) -> WeightsView | None:
    """What the file gives to the network."""
    return None if measured.weights is None else WeightsView.model_validate(dict(measured.weights))


def lr_scale_views(measured: Measured) -> list[LrScaleView]:
    """The factors of the learning rate, the smallest first."""
    return [LrScaleView(scale=scale, parameters=count) for scale, count in measured.lr_scales]
