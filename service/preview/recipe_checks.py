"""What an experienced colleague would say about a recipe before it runs. Pure: from the spec and the measured network.

Every rule is one function that yields its warnings; nothing here refuses an experiment.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cbam_core.attention.options import BAMOptions, CBAMOptions, ECAOptions, TripletOptions
from cbam_core.backbones import BASIC_RESNETS, BOTTLENECK_RESNETS
from cbam_core.datasets import OF_FILES, DatasetFacts, PartSizes
from cbam_core.explain.site import AttentionSite
from cbam_core.spec import AdamWSpec, ExperimentSpec, ModelSpec, MultistepSchedule, SGDSpec, StepSchedule
from service.preview.memory_estimate import images_per_pass
from service.preview.profiler import Measured

FEWEST_HIDDEN = 4
LINEAR_SCALING = 0.1 / 256  # SGD's learning rate for each image of a batch (Goyal et al. 2017)
LARGE_BATCH = 1024  # from here on plain SGD needs a warm-up (the same)
PUBLISHED_SIZE = 224  # of the images that timm's weights were trained with
EPOCHS_TO_MIX = 20
FEWEST_FOR_BATCH_NORM = 8
FASTEST_MACS = {"gpu": 500e12, "cpu": 100e9}  # a second, on one GPU or one core: beyond what is reached in practice
RESNETS = BASIC_RESNETS + BOTTLENECK_RESNETS
DIGITS = ("digits", "cluttered_digits", "mnist5k", "cluttered_mnist")


@dataclass(frozen=True)
class RecipeWarning:
    """One thing to think about: where in the spec, which rule says it, and what to do."""

    pointer: str
    code: str
    detail: str


@dataclass(frozen=True)
class RecipeContext:
    """All that the rules look at. `steps` is None where only a folder knows that the server does not see.

    `measured` is None where the network has not been measured yet, `cluster_gpus` where nobody sees the cluster.
    """

    spec: ExperimentSpec
    measured: Measured | None
    facts: DatasetFacts
    cluster_gpus: float | None = None

    @property
    def sites(self) -> tuple[AttentionSite, ...]:
        """Where attention is in the network, as far as that is known."""
        return () if self.measured is None else self.measured.sites

    @property
    def images(self) -> PartSizes:
        """Images of train, val and test."""
        return self.facts.divided(self.spec.data.val_fraction)

    @property
    def split(self) -> str:
        """Where they come from, in words; empty where only a folder knows that the server does not see."""
        return self.images.words(self.spec.data.became if self.facts.became is None else self.facts.became)

    @property
    def steps_per_epoch(self) -> int | None:
        """Full batches in the training set."""
        images = self.images.train
        return None if images is None else images // self.spec.train.global_batch_size

    @property
    def steps(self) -> int | None:
        """Optimiser steps of the whole training."""
        return None if self.steps_per_epoch is None else self.steps_per_epoch * self.spec.train.epochs


Rule = Callable[[RecipeContext], Iterator[RecipeWarning]]


def advice_on(case: RecipeContext) -> list[RecipeWarning]:
    """What all rules say, in the order of the spec."""
    return [found for rule in RULES for found in rule(case)]


def _narrow_bottleneck(case: RecipeContext) -> Iterator[RecipeWarning]:
    attention = case.spec.model.attention
    reduction = getattr(attention, "reduction", None)
    if reduction is None or attention.type == "coordinate" or getattr(attention, "order", "") == "spatial":
        return  # coordinate attention keeps at least eight, and a spatial gate has no MLP
    narrow = [site for site in case.sites if site.channels // reduction < FEWEST_HIDDEN]
    if narrow:
        least = min(site.channels for site in narrow)
        yield RecipeWarning(
            "/model/attention/reduction",
            "narrow_bottleneck",
            f"{len(narrow)} of {len(case.sites)} modules have fewer than {FEWEST_HIDDEN} hidden channels "
            f"({least} // {reduction} = {max(1, least // reduction)} at the narrowest); lower the reduction",
        )


def _kernel_over_map(case: RecipeContext) -> Iterator[RecipeWarning]:
    attention = case.spec.model.attention
    sites = case.sites
    smallest = min((min(site.height, site.width) for site in sites), default=0)
    if isinstance(attention, CBAMOptions | TripletOptions) and getattr(attention, "order", "") != "channel":
        over = [site for site in sites if min(site.height, site.width) < attention.kernel_size]
        if over:
            yield RecipeWarning(
                "/model/attention/kernel_size",
                "kernel_over_map",
                f"the spatial kernel ({attention.kernel_size}×{attention.kernel_size}) is larger than the map of "
                f"{len(over)} of {len(sites)} modules (down to {smallest}×{smallest}): most of it sees padding only",
            )
    if isinstance(attention, BAMOptions) and sites and 2 * attention.dilation + 1 > smallest:
        yield RecipeWarning(
            "/model/attention/dilation",
            "kernel_over_map",
            f"dilated by {attention.dilation} the 3×3 kernel spans {2 * attention.dilation + 1} places, and the "
            f"smallest map has {smallest}",
        )
    narrowest = min((site.channels for site in sites), default=0)
    if isinstance(attention, ECAOptions) and attention.kernel_size and attention.kernel_size > narrowest > 0:
        yield RecipeWarning(
            "/model/attention/kernel_size",
            "kernel_over_channels",
            f"{attention.kernel_size} neighbouring channels decide about one, and the narrowest map has {narrowest}",
        )


def _attention_inside(case: RecipeContext) -> Iterator[RecipeWarning]:
    if case.measured is not None and case.measured.inner_attention:
        yield RecipeWarning(
            "/model/backbone",
            "attention_inside",
            f"{case.spec.model.backbone} has {case.measured.inner_attention} modules of channel attention of its own "
            "(as SE): with `attention: none` it is no plain network, and other attention comes on top",
        )


def _stem_for_small_images(case: RecipeContext) -> Iterator[RecipeWarning]:
    model, size = case.spec.model, case.spec.data.image_size
    if size <= 64 and model.stem is None and model.backbone in RESNETS and not _is_trained(model):
        yield RecipeWarning(
            "/model/stem",
            "stem_for_large_images",
            f"the ImageNet stem quarters images of {size}×{size} at once, and the last stage sees "
            f"{max(1, size // 32)}×{max(1, size // 32)}; `stem: cifar` keeps their resolution",
        )


def _is_trained(model: ModelSpec) -> bool:
    return model.pretrained or model.weights is not None


def _frozen_at_random(case: RecipeContext) -> Iterator[RecipeWarning]:
    if case.spec.model.freeze and not _is_trained(case.spec.model):
        yield RecipeWarning(
            "/model/freeze",
            "frozen_at_random",
            "what is frozen keeps random weights: start from `weights`, or from `pretrained` ones",
        )


def _published_weights(case: RecipeContext) -> Iterator[RecipeWarning]:
    model, size = case.spec.model, case.spec.data.image_size
    if model.pretrained and not 0.5 <= size / PUBLISHED_SIZE <= 2:
        yield RecipeWarning(
            "/data/image_size",
            "other_size_than_published",
            f"the published weights were trained with images of {PUBLISHED_SIZE}×{PUBLISHED_SIZE}; at {size}×{size} "
            "their filters meet other scales",
        )
    if model.pretrained and case.facts.channels != 3:
        yield RecipeWarning(
            "/model/pretrained",
            "grey_images",
            "the published weights are for colour images; the first convolution starts from the sum of its filters for "
            "red, green and blue, and the mean and deviation are the average of theirs",
        )


def _batch(case: RecipeContext) -> Iterator[RecipeWarning]:
    train, images = case.spec.train, images_per_pass(case.spec)
    if case.steps_per_epoch == 0:
        yield RecipeWarning(
            "/train/global_batch_size",
            "batch_over_dataset",
            f"{case.spec.data.dataset} has {case.images.train} training images: not one full batch of "
            f"{train.global_batch_size}, so the training will fail",
        )
    if images < FEWEST_FOR_BATCH_NORM and not train.sync_batch_norm:
        yield RecipeWarning(
            "/train/global_batch_size",
            "few_images_for_batch_norm",
            f"each pass normalises over {images} image{'s' * (images != 1)}; below {FEWEST_FOR_BATCH_NORM} the "
            "statistics of batch norm are noise",
        )


def _learning_rate(case: RecipeContext) -> Iterator[RecipeWarning]:
    train = case.spec.train
    rate, batch = train.optimizer.lr, train.global_batch_size
    if isinstance(train.optimizer, SGDSpec):
        usual = LINEAR_SCALING * batch
        if train.optimizer.momentum >= 0.8 and not usual / 4 < rate < usual * 8:
            word = "high" if rate > usual else "low"
            yield RecipeWarning(
                "/train/optimizer/lr",
                "lr_unscaled",
                f"{rate:g} is {word} for a batch of {batch}: SGD usually takes 0.1 × {batch} / 256 = {usual:.3g}",
            )
        if batch >= LARGE_BATCH and not train.schedule.warmup_epochs:
            yield RecipeWarning(
                "/train/schedule/warmup_epochs",
                "no_warmup",
                f"with batches of {batch} the first steps of SGD often diverge; warm up for about 5 epochs",
            )
    elif isinstance(train.optimizer, AdamWSpec) and rate > 1e-2:
        yield RecipeWarning("/train/optimizer/lr", "lr_unscaled", f"{rate:g} is high for AdamW; usual are 1e-4 to 3e-3")


def _schedule(case: RecipeContext) -> Iterator[RecipeWarning]:
    train = case.spec.train
    schedule, epochs = train.schedule, train.epochs
    if schedule.warmup_epochs > epochs / 3:
        yield RecipeWarning(
            "/train/schedule/warmup_epochs",
            "long_warmup",
            f"the warm-up takes {schedule.warmup_epochs:g} of {epochs} epochs; little is left at the full rate",
        )
    if isinstance(schedule, StepSchedule) and schedule.step_epochs >= epochs:
        yield RecipeWarning(
            "/train/schedule/step_epochs",
            "rate_never_falls",
            f"the first step comes after {schedule.step_epochs} epochs, and there are {epochs}",
        )
    if isinstance(schedule, MultistepSchedule) and max(schedule.milestones) >= epochs:
        yield RecipeWarning(
            "/train/schedule/milestones",
            "rate_never_falls",
            f"the milestone {max(schedule.milestones)} is not before the end, after {epochs} epochs",
        )


def _regularisation(case: RecipeContext) -> Iterator[RecipeWarning]:
    augment, epochs = case.spec.data.augment, case.spec.train.epochs
    for name in ("mixup", "cutmix"):
        if getattr(augment, name) and epochs < EPOCHS_TO_MIX:
            yield RecipeWarning(
                f"/data/augment/{name}",
                "mixing_needs_epochs",
                f"{name} slows learning down, and pays in long trainings; {epochs} epochs are fewer than "
                f"{EPOCHS_TO_MIX}",
            )
    if augment.flip and case.spec.data.dataset in DIGITS:
        yield RecipeWarning("/data/augment/flip", "mirrored_digits", "a mirrored 2 is no 2")


def _crops_of_scaled_images(case: RecipeContext) -> Iterator[RecipeWarning]:
    data = case.spec.data
    if data.dataset in OF_FILES and data.augment.random_resized_crop and not data.workers_per_rank:
        yield RecipeWarning(
            "/data/workers_per_rank",
            "crops_of_scaled_images",
            f"random_resized_crop cuts its parts from images already scaled to {data.image_size} pixels, and scales "
            "them up again; set workers_per_rank to 1 or more to cut them from the whole images",
        )


def _ends_too_early(case: RecipeContext) -> Iterator[RecipeWarning]:
    spec, steps = case.spec, case.steps
    if not steps:
        return
    if spec.train.ema and 1 / (1 - spec.train.ema.decay) > steps / 4:
        yield RecipeWarning(
            "/train/ema/decay",
            "slow_average",
            f"the average looks back over {1 / (1 - spec.train.ema.decay):.0f} of {steps} steps",
        )
    if spec.checkpoint.every_steps and spec.checkpoint.every_steps >= steps:
        yield RecipeWarning(
            "/checkpoint/every_steps",
            "no_checkpoint",
            f"there are {steps} steps: a fault would cost all of them",
        )
    if spec.train.compile and steps < 500:
        yield RecipeWarning(
            "/train/compile", "compile_for_few_steps", f"compiling takes minutes, {steps} steps may take less"
        )


def _in_channels_last(spec: ExperimentSpec) -> ExperimentSpec:
    return spec.model_copy(update={"train": spec.train.model_copy(update={"channels_last": True})})


def _hardware(case: RecipeContext) -> Iterator[RecipeWarning]:
    spec, steps = case.spec, case.steps
    on_gpu = spec.resources.gpus_per_worker > 0
    if spec.train.precision == "fp16" and not on_gpu:
        yield RecipeWarning("/train/precision", "half_on_cpu", "fp16 is slow on CPUs; take bf16 or fp32")
    if (
        on_gpu
        and not spec.train.channels_last
        and spec.train.fused == "auto"
        and _in_channels_last(spec).unfused is None
    ):
        yield RecipeWarning(
            "/train/channels_last",
            "cbam_not_fused",
            "CBAM's fused kernels need channels_last; a step of ResNet-50 in bf16 took 2.4 times as long without them",
        )
    if not steps or spec.deadline_minutes is None or case.measured is None:
        return
    macs = 3.0 * case.measured.macs * steps * spec.train.global_batch_size  # forward, and twice that backward
    workers = spec.world_sizes[0]
    units = workers if on_gpu else workers * spec.resources.cpus_per_worker
    minutes = macs / (FASTEST_MACS["gpu" if on_gpu else "cpu"] * units) / 60
    if minutes > spec.deadline_minutes:
        yield RecipeWarning(
            "/deadline_minutes",
            "deadline_too_short",
            f"the arithmetic alone takes {minutes:.3g} minutes on the fastest hardware there is",
        )


def _gpus(case: RecipeContext) -> Iterator[RecipeWarning]:
    resources = case.spec.resources
    if case.cluster_gpus is None:
        return
    wanted = case.spec.world_sizes[-1] * resources.gpus_per_worker
    if wanted > case.cluster_gpus:
        has = f"has {case.cluster_gpus:g}" if case.cluster_gpus else "has none"
        yield RecipeWarning(
            "/resources/gpus_per_worker",
            "more_gpus_than_there_are",
            f"it takes {wanted:g} GPU{'s' * (wanted != 1)} and the cluster {has}: it waits until there are more",
        )


RULES: tuple[Rule, ...] = (
    _narrow_bottleneck,
    _kernel_over_map,
    _attention_inside,
    _stem_for_small_images,
    _published_weights,
    _frozen_at_random,
    _regularisation,
    _crops_of_scaled_images,
    _batch,
    _learning_rate,
    _schedule,
    _ends_too_early,
    _hardware,
    _gpus,
)
