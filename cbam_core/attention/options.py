"""What a user may say about an attention module. Torch-free, so that a server reads specs without loading torch.

A new variant is one file in this folder, one class here, one line in `registry.py`, and its test.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

Order = Literal["channel_spatial", "spatial_channel", "parallel", "channel", "spatial"]
ChannelPool = Literal["avg", "max", "lp", "lse"]
SpatialPool = Literal["avg", "max", "conv"]
GateName = Literal["sigmoid", "hard_sigmoid"]
GateNorm = Literal["batch", "none"]
Init = Literal["official", "timm"]
Placement = Literal["block", "stage"]
"""Where a module stands: at the end of every residual branch, or between the stages of the network."""


class Options(BaseModel):
    """What the options of every attention module share: unknown words are errors and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    placement: ClassVar[Placement] = "block"


class NoAttention(Options):
    """The plain backbone: the baseline of every comparison."""

    type: Literal["none"] = "none"


class CBAMOptions(Options):
    """Convolutional Block Attention Module (Woo et al. 2018), the authors' choices as defaults."""

    type: Literal["cbam"] = "cbam"
    reduction: PositiveInt = Field(16, description="r: the shared MLP has max(1, channels // r) hidden units")
    kernel_size: Annotated[int, Field(ge=3, le=31)] = Field(
        7, description="side of the spatial gate's convolution, odd; the paper compares 3 and 7"
    )
    order: Order = Field(
        "channel_spatial", description="which half stands first, or parallel, or one half alone (channel, spatial)"
    )
    pools: Annotated[tuple[ChannelPool, ...], Field(strict=False, min_length=1)] = Field(
        ("avg", "max"), description="how the channel gate pools H and W; several share one MLP and are summed"
    )
    spatial_pools: Annotated[tuple[SpatialPool, ...], Field(strict=False, min_length=1)] = Field(
        ("avg", "max"), description="how the spatial gate pools the channels; conv: a learned 1×1 convolution, alone"
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

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that the map keeps its size; got {value}")
        return value


class SEOptions(Options):
    """Squeeze-and-Excitation (Hu et al. 2018): CBAM's channel half with the average pool only."""

    type: Literal["se"] = "se"
    reduction: PositiveInt = Field(16, description="r: the MLP has max(1, channels // r) hidden units")


AttentionSpec = Annotated[NoAttention | CBAMOptions | SEOptions, Field(discriminator="type")]
