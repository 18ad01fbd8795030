"""ExperimentSpec: all that a user may say about one experiment. Imports no torch, so a server reads it in no time.

Every field says its meaning and unit; unknown keys are errors; a spec never changes once it is made.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from cbam_core.attention.options import AttentionSpec, CBAMOptions, NoAttention
from cbam_core.augment_spec import AugmentSpec, RandAugmentSpec
from cbam_core.backbones import (
    BACKBONES,
    BOTTLENECK_RESNETS,
    MOBILENETS,
    WITH_PUBLISHED_WEIGHTS,
    WITH_STEM,
    is_timm,
    stage_count,
)
from cbam_core.bounds import Steps, at_most
from cbam_core.errors import SpecError
from cbam_core.initial_weights.options import Freeze, InitialWeights
from cbam_core.pointers import error_items
from cbam_core.recipe import (
    AdamWSpec,
    ConstantSchedule,
    CosineSchedule,
    DataSpec,
    EMASpec,
    ExportFormat,
    LambSpec,
    MultistepSchedule,
    OptimizerSpec,
    ScheduleSpec,
    SeedsSpec,
    SGDSpec,
    StepSchedule,
    TrainSpec,
    ValSpec,
)
from cbam_core.spec_model import SpecModel, TypeAlone
from cbam_core.suggestions import Path as FieldPath
from cbam_core.suggestions import did_you_mean, fields_of
from cbam_core.timm_options import TimmOptimizerSpec
from cbam_core.yaml_text import as_text, parse_yaml, to_yaml

__all__ = [
    "AdamWSpec",
    "AugmentSpec",
    "CheckpointSpec",
    "ConstantSchedule",
    "CosineSchedule",
    "DataSpec",
    "EMASpec",
    "ExperimentSpec",
    "ExportFormat",
    "LambSpec",
    "ModelSpec",
    "MultistepSchedule",
    "OptimizerSpec",
    "RandAugmentSpec",
    "ResourcesSpec",
    "RetrySpec",
    "SGDSpec",
    "ScheduleSpec",
    "SeedsSpec",
    "SpecModel",
    "StepSchedule",
    "TimmOptimizerSpec",
    "TrainSpec",
    "ValSpec",
    "fields_in",
    "make_spec",
    "parse_yaml",
    "read_fields",
    "read_spec",
]

AsText = BeforeValidator(as_text)
"""Lets a field of text take a number, `true` and `false` too, as `tags: {seed: 0}` holds them."""
Name = Annotated[
    str, AsText, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._ +-]*$")
]
Markdown = Annotated[str, AsText, StringConstraints(max_length=4096, pattern=r"^[^\x00]*$")]
Tags = Annotated[
    dict[
        Annotated[str, AsText, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._/-]+$")],
        Annotated[str, AsText, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")],
    ],
    Field(max_length=64),
]
Priority = Annotated[int, Field(ge=-1000, le=1000)]
Stage = Annotated[int, Field(ge=1, le=64)]
WorkerCount = Annotated[int, Field(ge=1, le=4096)]
LEAST_GPU_SHARE = 0.0001  # Ray counts no finer
LONGEST_DEADLINE_MINUTES = 10 * 365 * 24 * 60


class ModelSpec(SpecModel):
    """The network: a backbone and the attention attached to its blocks."""

    backbone: Annotated[str, StringConstraints(max_length=256)] = Field(
        description=f"a network of the paper ({', '.join(BACKBONES)}), or timm:<name> for a convolutional one of timm's"
    )
    pretrained: bool = Field(
        False,
        description="start from timm's published ImageNet weights, all but a head that fits; images are normalised "
        "with the mean and deviation that these were trained with, and not with the dataset's",
    )
    weights: InitialWeights = Field(
        None, description="file, or experiment by its id, whose weights the training starts from; its path or id alone"
    )
    freeze: Freeze = Field(
        (),
        description="modules whose weights do not learn, by name, as `layer1`; backbone: all but head and attention. "
        "Their norms keep their statistics, and nothing in them drops out",
    )
    attention: Annotated[AttentionSpec, TypeAlone] = Field(
        default=NoAttention(),
        description="the module at the end of every block (BAM: between the stages); `cbam` is short for {type: cbam}",
    )
    stages: Annotated[tuple[Stage, ...], Field(strict=False, max_length=64), at_most(64)] | None = Field(
        None,
        description="stages that carry attention, counted from 1; where left out, all (BAM: all but the last)",
    )
    stem: Literal["imagenet", "cifar"] | None = Field(
        None, description="imagenet: quarters the image at once (default; mobilenet_v1: halves); cifar: full resolution"
    )
    stride_in_1x1: bool = Field(
        False, description="bottlenecks halve the map in their first 1×1 (as the paper counts), not in their 3×3"
    )
    width: Annotated[float, Field(gt=0, le=16)] = Field(
        1.0, description="channels of mobilenet_v1 as a multiple of the published ones (its alpha)"
    )

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, value: str) -> str:
        if value not in BACKBONES and not is_timm(value):
            raise ValueError(
                f"unknown backbone {value!r}{did_you_mean(value, BACKBONES)}; "
                f"known are {', '.join(BACKBONES)} and timm:<name>"
            )
        return value

    @model_validator(mode="after")
    def _stages_exist(self) -> Self:
        if self.stages is None:
            return self
        if isinstance(self.attention, NoAttention):
            raise ValueError("`stages` says where attention goes, and there is none; leave it out")
        last = stage_count(self.backbone)
        if not self.stages or len(set(self.stages)) != len(self.stages) or (last and max(self.stages) > last):
            numbers = f"from 1 to {last}" if last else "from 1"
            raise ValueError(f"stages of {self.backbone} are distinct numbers {numbers}; got {self.stages}")
        return self

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if self.stem is not None and self.backbone not in WITH_STEM:
            raise ValueError(f"{self.backbone} has a stem of its own; leave `stem` out")
        if self.stride_in_1x1 and self.backbone not in BOTTLENECK_RESNETS:
            raise ValueError(f"`stride_in_1x1` speaks of bottleneck blocks; {self.backbone} has none of ours")
        if self.width != 1 and self.backbone not in MOBILENETS:
            raise ValueError(f"`width` belongs to {', '.join(MOBILENETS)}; {self.backbone} has one width")
        return self

    @model_validator(mode="after")
    def _weights_exist(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise ValueError("`pretrained` and `weights` are two things to start from; choose one")
        if not self.pretrained or is_timm(self.backbone):
            return self
        if self.backbone not in WITH_PUBLISHED_WEIGHTS:
            raise ValueError(f"there are no published weights of {self.backbone}; leave `pretrained` out")
        if self.stem == "cifar" or self.stride_in_1x1:
            raise ValueError("published weights are for the imagenet stem with the stride in the 3×3 convolution")
        return self


class Elastic(SpecModel):
    """Each attempt starts with as many workers as fit, between the two; the global batch stays what the spec says."""

    min: WorkerCount = Field(description="fewest workers that an attempt starts with")
    max: WorkerCount = Field(description="most workers that an attempt starts with")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must not be above max ({self.max})")
        return self


class ResourcesSpec(SpecModel):
    """What one attempt of the experiment occupies while it runs."""

    workers: Annotated[
        Annotated[WorkerCount, Tag("fixed")] | Annotated[Elastic, Tag("elastic")],
        Discriminator(lambda value: "elastic" if isinstance(value, Elastic | dict) else "fixed"),
    ] = Field(1, description="data-parallel processes, started all or none: a number, or {min, max}")
    gpus_per_worker: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="0 trains on the CPU, 1 on one GPU each; a fraction (0.0001 at least) shares a GPU and its memory",
    )
    cpus_per_worker: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="CPU cores, also the threads torch uses"
    )

    @field_validator("gpus_per_worker")
    @classmethod
    def _what_ray_counts(cls, share: float) -> float:
        if 0 < share < LEAST_GPU_SHARE:
            raise ValueError(f"Ray counts GPUs in ten-thousandths: give 0, or at least {LEAST_GPU_SHARE}")
        return share

    @model_validator(mode="after")
    def _gangs_own_their_gpus(self) -> Self:
        if 0 < self.gpus_per_worker < 1 and self.workers != 1:
            raise ValueError("workers of one gang cannot share a GPU; with a fraction of one, workers must be 1")
        return self


class CheckpointSpec(SpecModel):
    """When the state of the training is written, and what is kept."""

    every_steps: Steps | None = Field(None, description="steps between checkpoints; every epoch where left out")
    keep_last: Annotated[int, Field(ge=1, le=10_000)] = Field(2, description="newest checkpoints that are kept")
    keep_best: Annotated[int, Field(ge=0, le=10_000)] = Field(
        1, description="best checkpoints by `metric` that are kept besides"
    )
    metric: Literal["val/top1", "val/loss"] = Field("val/top1", description="what the best checkpoint is best by")
    mode: Literal["max", "min"] = Field("max", description="max where the largest `metric` is best, else min")

    @model_validator(mode="after")
    def _sense(self) -> Self:
        if (self.metric == "val/loss") != (self.mode == "min"):
            raise ValueError(f"{self.metric} is best at its {'minimum' if self.metric == 'val/loss' else 'maximum'}")
        return self


class RetrySpec(SpecModel):
    """What happens after a failure that is the experiment's own; faults of the cluster are always retried."""

    max_restarts: Annotated[int, Field(ge=0, le=100)] = Field(
        0, description="further attempts after an error in the experiment itself"
    )


class ExperimentSpec(SpecModel):
    """One experiment: one network, one dataset, one recipe, one seed, on so many workers."""

    name: Name = Field(description="name of the experiment and of its MLflow run; need not be unique")
    project: Name = Field("default", description="MLflow experiment under which the run appears")
    description: Markdown = Field("", description="what it is for, in Markdown; MLflow shows it beside the run")
    tags: Tags = Field(default={}, description="labels to find it by, in MLflow too; none below cbam. or mlflow.")
    priority: Priority = Field(0, description="the larger number starts first")
    model: ModelSpec
    data: DataSpec
    train: TrainSpec = TrainSpec()
    resources: ResourcesSpec = ResourcesSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    export: Annotated[tuple[ExportFormat, ...], Field(strict=False, max_length=8), at_most(8)] = Field(
        (),
        description="programs written besides the weights (always, as safetensors): torch_export, onnx",
    )
    retry: RetrySpec = RetrySpec()
    preemptible: bool = Field(False, description="a higher priority may displace it: checkpoint, back into the queue")
    deadline_minutes: Annotated[float, Field(gt=0, le=LONGEST_DEADLINE_MINUTES)] | None = Field(
        None, description="the experiment fails this long after its submission; at most ten years"
    )

    @field_validator("export")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"each format at most once; got {', '.join(value)}")
        return value

    @model_validator(mode="after")
    def _batch_splits(self) -> Self:
        if not self.world_sizes:
            workers = self.resources.workers
            number = f"from {workers.min} to {workers.max}" if isinstance(workers, Elastic) else str(workers)
            factors = f"workers ({number})"
            if self.train.accumulate > 1:
                factors += f" × accumulate ({self.train.accumulate})"
            raise ValueError(f"global_batch_size ({self.train.global_batch_size}) must divide by {factors}")
        return self

    @model_validator(mode="after")
    def _statistics_travel_between_gpus(self) -> Self:
        if self.train.sync_batch_norm and self.resources.workers != 1 and not self.resources.gpus_per_worker:
            raise ValueError("torch synchronises batch norm between GPUs only; leave `sync_batch_norm` out on CPUs")
        return self

    @model_validator(mode="after")
    def _attention_to_scale(self) -> Self:
        if self.train.attention_lr_scale != 1 and isinstance(self.model.attention, NoAttention):
            raise ValueError("`attention_lr_scale` is of attention, and there is none; leave it out")
        return self

    @model_validator(mode="after")
    def _fused_applies(self) -> Self:
        reason = self.unfused
        if self.train.fused == "on" and reason is not None:
            raise ValueError(f"`fused: on` needs {reason}; auto uses it wherever it applies")
        return self

    @property
    def unfused(self) -> str | None:
        """What CBAM's fused kernels lack to end the residual blocks, as far as a spec can tell; None where nothing."""
        attention = self.model.attention
        if not isinstance(attention, CBAMOptions):
            return "attention of type cbam"
        if is_timm(self.model.backbone) or self.model.backbone in MOBILENETS:
            return "a backbone of the residual family"
        if not self.train.channels_last:
            return "train.channels_last"
        if not self.resources.gpus_per_worker:
            return "a GPU (resources.gpus_per_worker)"
        return attention.unfused

    @property
    def world_sizes(self) -> tuple[int, ...]:
        """The numbers of workers an attempt may have, largest first: those that split the global batch evenly."""
        workers = self.resources.workers
        least, most = (workers.min, workers.max) if isinstance(workers, Elastic) else (workers, workers)
        return world_sizes(least, most, batch_size=self.train.global_batch_size, accumulate=self.train.accumulate)

    def to_yaml(self) -> str:
        """As YAML with every default written out; `read_spec` gives the same spec back."""
        return to_yaml(self.model_dump(mode="json"))


def world_sizes(least: int, most: int, *, batch_size: int, accumulate: int) -> tuple[int, ...]:
    """The numbers of workers that split a global batch evenly into `accumulate` parts each, largest first."""
    return tuple(size for size in range(most, least - 1, -1) if batch_size % (size * accumulate) == 0)


def read_spec(path: str | Path) -> ExperimentSpec:
    """The spec in a YAML or JSON file. Raises SpecError that says all that is wrong with it."""
    return make_spec(read_fields(path), source=str(path))


def read_fields(path: str | Path) -> dict[str, Any]:
    """What a YAML or JSON file says, not validated yet. Raises SpecError where it is no mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {path}: {error}") from error
    return fields_in(text, source=str(path))


def fields_in(text: str, *, source: str) -> dict[str, Any]:
    """What a YAML or JSON text says, not validated yet. Raises SpecError where it is no mapping."""
    try:
        value = parse_yaml(text)
    except SpecError as error:
        raise SpecError(f"{source}: {error}") from error
    if not isinstance(value, dict):
        raise SpecError(f"{source} holds {type(value).__name__}, not a mapping of spec fields")
    return value


@cache
def spec_fields() -> tuple[FieldPath, ...]:
    """Every field of a spec: what may be meant by one that there is not."""
    return tuple(fields_of(ExperimentSpec.model_json_schema()))


def make_spec(fields: Mapping[str, Any], *, source: str) -> ExperimentSpec:
    """The spec of these fields. Raises SpecError with one line for each that is wrong: source, JSON pointer, words."""
    try:
        return ExperimentSpec.model_validate(fields)
    except ValidationError as error:
        found = error_items(error.errors(include_url=False), fields, fields=spec_fields())
        raise SpecError("\n".join(f"{source}: {pointer or '/'}: {words}" for pointer, words in found)) from error
