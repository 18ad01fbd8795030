"""The recipe of an experiment: its images, its optimiser, its schedule. Torch-free."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PositiveFloat,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from cbam_core.augment_spec import AugmentSpec
from cbam_core.bounds import Epochs, at_most
from cbam_core.datasets import DATASETS, DOWNLOADABLE, HELD_OUT, OF_FILES
from cbam_core.spec_model import Share, SpecModel, TypeAlone
from cbam_core.tables.options import ColumnsSpec
from cbam_core.timm_options import TimmOptimizerSpec, refusal

ExportFormat = Literal["torch_export", "onnx"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class ValSpec(SpecModel):
    """The images that curves and choices are made on: a part of those to train on, where the dataset has no val."""

    fraction: Annotated[float, Field(gt=0, le=0.5)] = Field(0.1, description="of the training images that become val")
    seed: Seed = Field(0, description="which ones; its own, so that every train.seed has the same val")
    stratified: bool = Field(True, description="the same fraction of every class")
    group: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = Field(
        None,
        description="imagefolder: a regular expression on <class>/<image>; images for which its first group (or else "
        "what it matches) is the same stay together: a patient, a video. table: the column that holds it",
    )

    @field_validator("group")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    @property
    def words(self) -> str:
        """How val is cut."""
        stratified = ", of every class" if self.stratified else ""
        group = f", groups by {self.group}" if self.group else ""
        return f"{self.fraction:.0%} cut from train{stratified}{group}, seed {self.seed}"


class DataSpec(SpecModel):
    """The images: which, and at which size they enter the network."""

    dataset: Literal[
        "digits",
        "cluttered_digits",
        "mnist5k",
        "cluttered_mnist",
        "cifar10",
        "cifar100",
        "fashion_mnist",
        "imagefolder",
        "table",
        "synthetic",
    ] = Field(description="; ".join(f"{name}: {facts.title}" for name, facts in DATASETS.items()))
    root: str | None = Field(
        None,
        max_length=4096,
        description="absolute folder that holds the dataset, or a table's file, below one of the data roots",
    )
    columns: ColumnsSpec | None = Field(None, description="table: which columns hold what; null: image and label")
    download: bool = Field(
        False, description="fetch what is missing below root from its publisher, where the operator allows it"
    )
    image_size: Annotated[int, Field(ge=8, le=1024)] = Field(32, description="side of the square input, in pixels")
    crop_pct: Annotated[float, Field(ge=0.5, le=1)] = Field(
        1.0,
        description="imagefolder, table: side of the middle that val and test see, as a share of the shorter side; "
        "0.875 scales that to 256 pixels for an image_size of 224",
    )
    val: Annotated[
        Annotated[ValSpec, Tag("cut")] | Annotated[Literal["folder"], Tag("folder")],
        Discriminator(lambda value: "folder" if isinstance(value, str) else "cut"),
    ] = Field(
        ValSpec(),
        description="the images of val/*: cut from the training images, or folder: the part that the dataset holds out "
        "(its val folder, or else its test part, which then is no test); an imagefolder or a table of train, val and "
        "test is taken as it is",
    )
    augment: AugmentSpec = AugmentSpec()
    workers_per_rank: Annotated[int, Field(ge=0, le=128)] = Field(
        0,
        description="processes that read images ahead for each worker, and from the first evaluation on as many again "
        "for those of val; for sets larger than memory: an imagefolder stays on disk, others, and encoded "
        "images of a table, in the machine's memory; 0: all images are held on the training device",
    )

    @property
    def val_fraction(self) -> float | None:
        """Of the training images that become val, where the dataset has none; None: the part held out is val."""
        return self.val.fraction if isinstance(self.val, ValSpec) else None

    @property
    def became(self) -> dict[str, str]:
        """Where val and test come from, in words, of a dataset that is published in two parts."""
        return {"val": self.val.words, "test": HELD_OUT} if isinstance(self.val, ValSpec) else {"val": HELD_OUT}

    @field_validator("root")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None and (not PurePosixPath(value).is_absolute() or "\0" in value):
            raise ValueError("root must be an absolute path")
        return value

    @model_validator(mode="after")
    def _root_where_needed(self) -> Self:
        needs_root = DATASETS[self.dataset].needs_root
        if not needs_root and self.root is not None:
            raise ValueError(f"{self.dataset} is read from no folder; leave `root` out")
        if needs_root and self.root is None:
            raise ValueError(f"{self.dataset} is read from a folder; say which in `root`")
        return self

    @model_validator(mode="after")
    def _published(self) -> Self:
        if self.download and self.dataset not in DOWNLOADABLE:
            raise ValueError(f"only {', '.join(DOWNLOADABLE)} can be downloaded; leave `download` out")
        return self

    @model_validator(mode="after")
    def _at_least_a_group_of_val(self) -> Self:
        facts = DATASETS[self.dataset]
        if self.val_fraction is not None and facts.divided(self.val_fraction).val == 0:
            raise ValueError(
                f"{self.dataset} has groups of {facts.together} images that stay in one part, and val.fraction "
                f"{self.val_fraction:g} of {facts.train_images:,} is less than one"
            )
        return self

    @model_validator(mode="after")
    def _paths_to_group(self) -> Self:
        if isinstance(self.val, ValSpec) and self.val.group is not None and self.dataset not in OF_FILES:
            raise ValueError(f"{self.dataset} has no paths to group by, only imagefolder has; leave `val.group` out")
        if self.columns is not None and self.dataset != "table":
            raise ValueError(f"{self.dataset} is no table and has no columns; leave `columns` out")
        return self

    @model_validator(mode="after")
    def _photographs_to_crop(self) -> Self:
        if self.crop_pct != 1 and self.dataset not in OF_FILES:
            raise ValueError(
                f"{self.dataset} is tested on whole images, only {' and '.join(OF_FILES)} are cropped; "
                "leave `crop_pct` out"
            )
        return self

    @model_validator(mode="after")
    def _colours_to_change(self) -> Self:
        if DATASETS[self.dataset].channels == 1 and (self.augment.hue or self.augment.saturation):
            raise ValueError(f"{self.dataset} is grey, without hue and saturation; leave them out of `augment`")
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.augment.crop_padding >= self.image_size:
            raise ValueError(f"crop_padding ({self.augment.crop_padding}) must be less than image_size")
        return self


class SGDSpec(SpecModel):
    """Stochastic gradient descent with momentum."""

    type: Literal["sgd"] = "sgd"
    lr: PositiveFloat = Field(0.1, description="peak learning rate, reached after the warm-up")
    momentum: Share = Field(0.9, description="share of the last step that the next one keeps")
    nesterov: bool = Field(False, description="look ahead along the momentum (Sutskever et al. 2013)")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="L2 penalty on every weight")
    decay_norms_and_biases: bool = Field(True, description="weight decay also on biases and normalisation weights")

    @model_validator(mode="after")
    def _momentum_to_look_along(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class AdamWSpec(SpecModel):
    """Adam with decoupled weight decay."""

    type: Literal["adamw"] = "adamw"
    lr: PositiveFloat = Field(1e-3, description="peak learning rate, reached after the warm-up")
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = Field(
        (0.9, 0.999), description="decay of the running means of the gradient and of its square"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.05, description="each step shrinks every weight by this times the learning rate"
    )
    decay_norms_and_biases: bool = Field(True, description="weight decay also on biases and normalisation weights")


class LambSpec(SpecModel):
    """Adam with a step per layer in proportion to its weights, for very large batches (You et al. 2020)."""

    type: Literal["lamb"] = "lamb"
    lr: PositiveFloat = Field(5e-3, description="peak learning rate, reached after the warm-up")
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = Field(
        (0.9, 0.999), description="decay of the running means of the gradient and of its square"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.02, description="share of every weight added to its step, before the step is scaled by layer"
    )
    decay_norms_and_biases: bool = Field(True, description="weight decay also on biases and normalisation weights")


class _Schedule(SpecModel):
    warmup_epochs: Annotated[float, Field(ge=0)] = Field(0.0, description="epochs of linear rise from 0 to lr")


class StepSchedule(_Schedule):
    """Multiply the learning rate by gamma every so many epochs (the paper: 0.1 every 30)."""

    type: Literal["step"] = "step"
    step_epochs: Epochs = Field(30, description="epochs from one change of the learning rate to the next")
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="factor of each change")


class MultistepSchedule(_Schedule):
    """Multiply the learning rate by gamma after each of the named epochs."""

    type: Literal["multistep"] = "multistep"
    milestones: Annotated[tuple[Epochs, ...], Field(strict=False, min_length=1, max_length=100), at_most(100)] = Field(
        description="completed epochs after which the learning rate changes"
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="factor of each change")


class CosineSchedule(_Schedule):
    """Half a cosine from lr to min_lr, from the end of the warm-up to the end of the training."""

    type: Literal["cosine"] = "cosine"
    min_lr: Annotated[float, Field(ge=0)] = Field(0.0, description="learning rate at the end of the training")


class ConstantSchedule(_Schedule):
    """The learning rate stays at lr."""

    type: Literal["constant"] = "constant"


def _known_optimizer(value: object) -> object:
    """Refuse a type that there is not in a few words: pydantic would list all of timm's."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind is not None and (reason := refusal(str(kind), ("sgd", "adamw", "lamb"))) is not None:
        raise ValueError(reason)
    return value


OptimizerSpec = Annotated[
    Annotated[SGDSpec | AdamWSpec | LambSpec | TimmOptimizerSpec, Field(discriminator="type")],
    BeforeValidator(_known_optimizer),
    TypeAlone,  # the first to be asked: pydantic goes from right to left
]
ScheduleSpec = Annotated[
    Annotated[StepSchedule | MultistepSchedule | CosineSchedule | ConstantSchedule, Field(discriminator="type")],
    TypeAlone,
]


class EMASpec(SpecModel):
    """An exponential moving average of the weights, which is then what is evaluated and exported."""

    decay: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.999, description="share of the average kept at step k, counted from 0; (1 + k) / (10 + k) while that is less"
    )
    buffers: Literal["copy", "average"] = Field(
        "copy",
        description="running statistics of its norms: copy, those of the weights of now; average, as the weights are "
        "(timm's ModelEmaV3)",
    )


def _on_or_off(value: object) -> object:
    """Readers of YAML 1.1, which other programs have, take `on` and `off` for booleans."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class SeedsSpec(SpecModel):
    """Seeds apart; one that is null is the recipe's `seed`."""

    init: Seed | None = Field(None, description="first weights")
    data: Seed | None = Field(None, description="order of the images")
    augment: Seed | None = Field(None, description="augmentation, mixing, and what else is random in a step")


class TrainSpec(SpecModel):
    """The recipe."""

    epochs: Epochs = Field(90, description="passes over the training set")
    global_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        256, description="images per optimizer step over all workers together, whatever their number"
    )
    accumulate: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="parts into which a worker cuts its share of a batch, one after the other, to save memory"
    )
    optimizer: OptimizerSpec = Field(SGDSpec(), description="optimizer and its settings, or its type alone")
    schedule: ScheduleSpec = Field(CosineSchedule(), description="learning rate over the epochs; or its type alone")
    loss: Literal["cross_entropy", "bce"] = Field(
        "cross_entropy",
        description="what the training lowers; bce: a yes or no for each class, averaged over them (Wightman et al. "
        "2021, arXiv 2110.00476). val/loss and test/loss are the cross-entropy in any case",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="balanced: in the training's loss an image counts by how rare its class is, "
        "images / (classes × images of its class): 1 on average",
    )
    layer_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="factor of the learning rate from one layer (stem, blocks, head) to that before it; null: 1"
    )
    attention_lr_scale: Annotated[float, Field(gt=0, le=1000)] = Field(
        1.0, description="factor of the learning rate of the attention modules' weights"
    )
    label_smoothing: Share = Field(0.0, description="share of every label spread over all classes")
    clip_norm: PositiveFloat | None = Field(None, description="largest 2-norm of the gradient; null: no limit")
    ema: EMASpec | None = Field(None, description="average of the weights to evaluate and export; null: the weights")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="bf16, fp16: autocast, weights stay fp32; fp16 scales the loss"
    )
    channels_last: bool = Field(False, description="images as N H W C in memory; faster on GPUs in half precision")
    sync_batch_norm: bool = Field(
        False, description="batch statistics over all workers, on GPUs; the norms inside attention keep their own"
    )
    fused: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)] = Field(
        "auto",
        description="CBAM's norm, gates, shortcut and ReLU as one GPU operator: auto where it applies (channels_last, "
        "the networks of the paper's residual family), on or a named refusal, off",
    )
    compile: bool = Field(False, description="torch.compile: faster steps after minutes of compiling")
    seed: Seed = Field(0, description="initial weights, order of the images, augmentation")
    seeds: SeedsSpec | None = Field(None, description="some of these apart from `seed`; null: none")
    deterministic: bool = Field(False, description="only kernels that give the same bits every time; slower on GPUs")

    def seed_of(self, purpose: Literal["init", "data", "augment"]) -> int:
        """The seed for one purpose."""
        apart: int | None = getattr(self.seeds, purpose, None)
        return self.seed if apart is None else apart

    @model_validator(mode="after")
    def _weights_have_a_loss(self) -> Self:
        if self.loss == "bce" and self.class_weights != "none":
            raise ValueError("class_weights are of cross_entropy: bce asks for every class of every image; choose one")
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs ({self.schedule.warmup_epochs}) must be less than epochs ({self.epochs})")
        return self

    @model_validator(mode="after")
    def _cosine_falls(self) -> Self:
        schedule, rate = self.schedule, self.optimizer.lr
        if isinstance(schedule, CosineSchedule) and schedule.min_lr > rate:
            raise ValueError(f"min_lr ({schedule.min_lr:g}) must not be above the optimizer's lr ({rate:g})")
        return self
