"""What a spec would run, without running it. Loads no torch: the network is measured by a process of its own."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from cbam_core.datasets import DATASETS
from cbam_core.spec import ExperimentSpec, TimmOptimizerSpec
from service.preview.image_folder import look_at
from service.preview.memory_estimate import estimate, images_per_pass
from service.preview.profiler import NetworkProfiler
from service.preview.recipe_checks import RecipeContext, advice_on
from service.schemas.previews import AdviceView, MemoryView, PreviewView, SiteView

DEFAULT_CLASSES = 1000  # where only a folder knows that this server does not see


def warnings_of(
    network_profiler: NetworkProfiler, spec: ExperimentSpec, *, cluster_gpus: float | None
) -> list[AdviceView]:
    """What a preview would warn of, without having the network measured or a folder counted: for the answer to a
    submission.

    What only a measured network tells is among it where a preview has been asked for before.
    """
    facts = DATASETS[spec.data.dataset]
    classes = facts.classes or DEFAULT_CLASSES
    measured = network_profiler.known(
        spec.model, channels=facts.channels, classes=classes, image_size=spec.data.image_size
    )
    case = RecipeContext(spec, measured, facts, cluster_gpus)
    return [AdviceView.model_validate(found) for found in advice_on(case)]


async def preview(
    network_profiler: NetworkProfiler,
    spec: ExperimentSpec,
    *,
    data_roots: Iterable[Path],
    caller: str,
    cluster_gpus: float | None = None,
) -> PreviewView:
    """Have the network measured, count a folder of images that lies below `data_roots`, and say what follows.

    Raises InvalidField where it cannot be built, or the optimiser refuses its options; PreviewUnavailable where it
    cannot be measured now.
    """
    facts, found_in_folder = await look_at(spec.data, data_roots)
    classes = facts.classes or DEFAULT_CLASSES
    measured = await network_profiler.measure(
        spec.model, channels=facts.channels, classes=classes, image_size=spec.data.image_size, caller=caller
    )
    if isinstance(spec.train.optimizer, TimmOptimizerSpec):
        await network_profiler.check_optimizer(spec.train.optimizer, caller=caller)
    case = RecipeContext(spec, measured, facts, cluster_gpus)
    memory = estimate(spec, measured, facts)
    return PreviewView(
        parameters=measured.parameters,
        macs=measured.macs,
        attention_parameters=sum(site.parameters for site in measured.sites),
        attention_macs=sum(site.macs for site in measured.sites),
        sites=[SiteView.model_validate(site) for site in measured.sites],
        classes=classes,
        train_images=case.images.train,
        val_images=case.images.val,
        test_images=case.images.test,
        split=case.split,
        steps_per_epoch=case.steps_per_epoch,
        total_steps=case.steps,
        images_per_pass=images_per_pass(spec),
        memory=MemoryView(**asdict(memory), total=memory.total),
        warnings=[AdviceView.model_validate(found) for found in [*found_in_folder, *advice_on(case)]],
    )
