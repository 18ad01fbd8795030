"""What a spec would run, without running it. Loads no torch: the network is measured by a process of its own."""

from dataclasses import asdict

from cbam_core.datasets import DATASETS
from cbam_core.spec import ExperimentSpec, TimmOptimizerSpec
from service.preview.beginning import lr_scale_views, not_looked_at, question_of, weights_view
from service.preview.image_folder import look_at
from service.preview.memory_estimate import estimate, images_per_pass
from service.preview.profiler import NetworkProfiler
from service.preview.recipe_checks import RecipeContext, advice_on
from service.schemas.previews import AdviceView, MemoryView, PreviewView, SiteView
from service.settings import Settings


def warnings_of(
    network_profiler: NetworkProfiler, spec: ExperimentSpec, *, settings: Settings, cluster_gpus: float | None
) -> list[AdviceView]:
    """What a preview would warn of, without having the network measured or a folder counted: for the answer to a
    submission.

    What only a measured network tells is among it where a preview has been asked for before.
    """
    facts = DATASETS[spec.data.dataset]
    measured = network_profiler.known(question_of(spec, facts, settings))
    case = RecipeContext(spec, measured, facts, cluster_gpus)
    return [AdviceView.model_validate(found) for found in advice_on(case)]


async def preview(
    network_profiler: NetworkProfiler,
    spec: ExperimentSpec,
    *,
    settings: Settings,
    caller: str,
    cluster_gpus: float | None = None,
) -> PreviewView:
    """Have the network measured, count a folder of images that lies below the data roots, and say what follows.

    Raises InvalidField where it cannot be built, its weights do not fit, or the optimiser refuses its options;
    PreviewUnavailable where it cannot be measured now.
    """
    facts, found_in_folder = await look_at(spec.data, settings.data_roots)
    question = question_of(spec, facts, settings)
    measured = await network_profiler.measure(question, caller=caller)
    if isinstance(spec.train.optimizer, TimmOptimizerSpec):
        await network_profiler.check_optimizer(spec.train.optimizer, caller=caller)
    case = RecipeContext(spec, measured, facts, cluster_gpus)
    memory = estimate(spec, measured, facts)
    return PreviewView(
        parameters=measured.parameters,
        trainable_parameters=measured.learning,
        macs=measured.macs,
        attention_parameters=sum(site.parameters for site in measured.sites),
        attention_macs=sum(site.macs for site in measured.sites),
        sites=[SiteView.model_validate(site) for site in measured.sites],
        classes=question.classes,
        train_images=case.images.train,
        val_images=case.images.val,
        test_images=case.images.test,
        split=case.split,
        steps_per_epoch=case.steps_per_epoch,
        total_steps=case.steps,
        images_per_pass=images_per_pass(spec),
        memory=MemoryView(**asdict(memory), total=memory.total),
        weights=weights_view(measured),
        lr_scales=lr_scale_views(measured),
        warnings=[
            AdviceView.model_validate(found)
            for found in [*found_in_folder, *not_looked_at(spec, question), *advice_on(case)]
        ],
    )
