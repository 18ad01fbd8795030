"""What a user may say about an attention module. Torch-free, so that a server reads specs without loading torch.

What a new variant takes: docs/design/attention.md, "Checklist for a new variant".
"""

from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    field_validator,
    model_validator,
)

from cbam_core.bounds import Reduction, at_most
from cbam_core.papers import Paper

Order = Literal["channel_spatial", "spatial_channel", "parallel", "channel", "spatial"]
ChannelPool = Literal["avg", "max", "lp", "lse"]
SpatialPool = Literal["avg", "max", "conv"]
_Pool = TypeVar("_Pool")
Pools = Annotated[tuple[_Pool, ...], Field(strict=False, min_length=1, max_length=8), at_most(8)]
GateName = Literal["sigmoid", "hard_sigmoid"]
GateNorm = Literal["batch", "none"]
Init = Literal["official", "timm"]
BAMFusion = Literal["product", "sum"]
SCSEFusion = Literal["sum", "max"]
GCTNorm = Literal["l2", "l1"]
ContextFusion = Literal["add", "scale"]
Placement = Literal["block", "stage"]
"""Where a module stands: at the end of every residual branch, or between the stages of the network."""
LARGEST_FUSED_KERNEL = 7
"""Side of the largest spatial convolution that `cbam_core.fused` has kernels for."""


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"kernel_size must be odd, so that the map keeps its size; got {value}")
    return value


Kernel = Annotated[int, Field(ge=3, le=31), AfterValidator(_odd)]


class Options(BaseModel):
    """What the options of every attention module share: unknown words are errors and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    placement: ClassVar[Placement] = "block"
    factory: ClassVar[str]
    """`module:class` of what is made. It takes the channels, then every field but `type` as a keyword."""
    paper: ClassVar[Paper | None] = None


class NoAttention(Options):
    """The plain backbone: the baseline of every comparison."""

    factory: ClassVar[str] = "torch.nn:Identity"
    type: Literal["none"] = "none"


class CBAMOptions(Options):
    """Convolutional Block Attention Module (Woo et al. 2018), the authors' choices as defaults."""

    factory: ClassVar[str] = "cbam_core.attention.cbam:CBAM"
    paper: ClassVar[Paper | None] = Paper.arxiv(
        "1807.06521", 2018, "Woo et al.", "CBAM: Convolutional Block Attention Module"
    )
    type: Literal["cbam"] = "cbam"
    reduction: Reduction = Field(16, description="r: the shared MLP has max(1, channels // r) hidden units")
    kernel_size: Kernel = Field(
        7, description="side of the spatial gate's convolution, odd; the paper compares 3 and 7"
    )
    order: Order = Field(
        "channel_spatial", description="which half stands first, or parallel, or one half alone (channel, spatial)"
    )
    pools: Pools[ChannelPool] = Field(
        ("avg", "max"), description="how the channel gate pools H and W; several share one MLP and are summed"
    )
    spatial_pools: Annotated[tuple[SpatialPool, ...], Field(strict=False, min_length=1, max_length=8), at_most(8)] = (
        Field(
            ("avg", "max"),
            description="how the spatial gate pools the channels; conv: a learned 1×1 convolution, alone",
        )
    )
    mlp_bias: bool = Field(True, description="biases in the shared MLP; the paper's parameter counts need them")
    spatial_norm: GateNorm = Field("batch", description="what stands between the spatial convolution and its gate")
    gate: GateName = Field("sigmoid", description="what makes a gate of a number, in both halves")
    init: Init = Field(
        "official",
        description="official: Linear-default MLP, spatial gate at one half; timm: He fan-out, BatchNorm scale 1",
    )

    @field_validator("pools", "spatial_pools")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"each pool at most once; got {', '.join(value)}")
        if "conv" in value and len(value) > 1:
            raise ValueError("conv takes the place of the pools; give it alone")
        return value

    @model_validator(mode="after")
    def _nothing_ignored(self) -> Self:
        absent = {
            "channel": ("kernel_size", "spatial_pools", "spatial_norm"),
            "spatial": ("reduction", "pools", "mlp_bias"),
        }
        for field in absent.get(self.order, ()):
            if getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"`{field}` says nothing about order: {self.order}; leave it out")
        return self

    @property
    def unfused(self) -> str | None:
        """What the kernels of `cbam_core.fused` need and these options lack."""
        if self.order != "channel_spatial" or self.gate != "sigmoid":
            return "order channel_spatial and sigmoid gates"
        if {*self.pools} != {"avg", "max"} or {*self.spatial_pools} != {"avg", "max"}:
            return "both gates to pool by avg and max"
        return None if self.kernel_size <= LARGEST_FUSED_KERNEL else f"a kernel_size of {LARGEST_FUSED_KERNEL} at most"


class SEOptions(Options):
    """Squeeze-and-Excitation (Hu et al. 2018): CBAM's channel half with the average pool only."""

    factory: ClassVar[str] = "cbam_core.attention.se:SE"
    paper: ClassVar[Paper | None] = Paper.arxiv("1709.01507", 2018, "Hu et al.", "Squeeze-and-Excitation Networks")
    type: Literal["se"] = "se"
    reduction: Reduction = Field(16, description="r: the MLP has max(1, channels // r) hidden units")


class ECAOptions(Options):
    """Efficient Channel Attention (Wang et al. 2020): neighbouring channels talk, no bottleneck."""

    factory: ClassVar[str] = "cbam_core.attention.eca:ECA"
    paper: ClassVar[Paper | None] = Paper.arxiv(
        "1910.03151", 2020, "Wang et al.", "ECA-Net: Efficient Channel Attention"
    )
    type: Literal["eca"] = "eca"
    kernel_size: Kernel | None = Field(
        None, description="channels that decide about one channel, odd; from the width (equation 12) where left out"
    )


class BAMOptions(Options):
    """Bottleneck Attention Module (Park et al. 2018): stands between the stages, not in the blocks."""

    placement: ClassVar[Placement] = "stage"

    factory: ClassVar[str] = "cbam_core.attention.bam:BAM"
    paper: ClassVar[Paper | None] = Paper.arxiv("1807.06514", 2018, "Park et al.", "BAM: Bottleneck Attention Module")
    type: Literal["bam"] = "bam"
    reduction: Reduction = Field(16, description="r: both branches have max(1, channels // r) hidden channels")
    dilation: Annotated[int, Field(ge=1, le=1024)] = Field(
        4, description="of the spatial branch's 3×3 convolutions, in pixels"
    )
    fusion: BAMFusion = Field(
        "product", description="how the branches meet inside the sigmoid: product (the authors' code), sum (the paper)"
    )


class SCSEOptions(Options):
    """Concurrent spatial and channel squeeze and excitation (Roy et al. 2018)."""

    factory: ClassVar[str] = "cbam_core.attention.scse:SCSE"
    paper: ClassVar[Paper | None] = Paper.arxiv(
        "1803.02579", 2018, "Roy et al.", "Concurrent Spatial and Channel Squeeze & Excitation"
    )
    type: Literal["scse"] = "scse"
    reduction: Reduction = Field(2, description="r: the MLP has max(1, channels // r) hidden units; 2 in the paper")
    fusion: SCSEFusion = Field("sum", description="the two recalibrated maps are added, or the larger value is taken")


class SimAMOptions(Options):
    """SimAM (Yang et al. 2021): no weights at all."""

    factory: ClassVar[str] = "cbam_core.attention.simam:SimAM"
    paper: ClassVar[Paper | None] = Paper(
        "SimAM: A Simple, Parameter-Free Attention Module",
        "Yang et al.",
        2021,
        "https://proceedings.mlr.press/v139/yang21o.html",
    )
    type: Literal["simam"] = "simam"
    regularisation: PositiveFloat = Field(1e-4, description="lambda, added to each channel's variance")


class CoordinateOptions(Options):
    """Coordinate attention (Hou et al. 2021): a gate along the height and one along the width."""

    factory: ClassVar[str] = "cbam_core.attention.coordinate:Coordinate"
    paper: ClassVar[Paper | None] = Paper.arxiv(
        "2103.02907", 2021, "Hou et al.", "Coordinate Attention for Efficient Mobile Network Design"
    )
    type: Literal["coordinate"] = "coordinate"
    reduction: Reduction = Field(32, description="r: the middle has max(8, channels // r) channels")


class TripletOptions(Options):
    """Triplet attention (Misra et al. 2021): CBAM's spatial gate over each pair of the three axes."""

    factory: ClassVar[str] = "cbam_core.attention.triplet:Triplet"
    paper: ClassVar[Paper | None] = Paper.arxiv(
        "2010.03045", 2021, "Misra et al.", "Rotate to Attend: Convolutional Triplet Attention Module"
    )
    type: Literal["triplet"] = "triplet"
    kernel_size: Kernel = Field(7, description="side of the convolutions, odd")
    spatial: bool = Field(
        True, description="false leaves the gate over height and width out, as in the paper's ablation"
    )


class GCTOptions(Options):
    """Gated Channel Transformation (Yang et al. 2020): three numbers per channel."""

    factory: ClassVar[str] = "cbam_core.attention.gct:GCT"
    paper: ClassVar[Paper | None] = Paper.arxiv(
        "1909.11519", 2020, "Yang et al.", "Gated Channel Transformation for Visual Recognition"
    )
    type: Literal["gct"] = "gct"
    norm: GCTNorm = Field("l2", description="the norm over places, and over channels")
    epsilon: PositiveFloat = Field(1e-5, description="keeps the norms of an empty map above zero")


class GlobalContextOptions(Options):
    """Global context block (Cao et al. 2019): one pooled vector, added to every place."""

    factory: ClassVar[str] = "cbam_core.attention.global_context:GlobalContext"
    paper: ClassVar[Paper | None] = Paper.arxiv(
        "1904.11492", 2019, "Cao et al.", "GCNet: Non-local Networks Meet SE Networks and Beyond"
    )
    type: Literal["global_context"] = "global_context"
    reduction: Reduction = Field(16, description="r: the transform has max(1, channels // r) hidden units")
    fusion: ContextFusion = Field("add", description="the context is added (the paper), or scales through a sigmoid")


AttentionSpec = Annotated[
    NoAttention
    | CBAMOptions
    | SEOptions
    | ECAOptions
    | BAMOptions
    | SCSEOptions
    | SimAMOptions
    | CoordinateOptions
    | TripletOptions
    | GCTOptions
    | GlobalContextOptions,
    Field(discriminator="type"),
]
