"""What a user may say about an attention module. Torch-free, so that a server reads specs without loading torch.

A new variant is one file in this folder, one class here, one line in `registry.py`, and its test.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator


class Options(BaseModel):
    """What the options of every attention module share: unknown words are errors and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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
