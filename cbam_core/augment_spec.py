"""How the training images of an experiment are changed. Torch-free."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cbam_core.spec_model import Share, SpecModel

Chance = Annotated[float, Field(ge=0, le=1)]


class RandAugmentSpec(SpecModel):
    """So many operations out of 14, drawn for every image, all of one magnitude (Cubuk et al. 2020)."""

    num_ops: Annotated[int, Field(ge=1, le=14)] = Field(2, description="operations, one after the other")
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(9, description="how strong they are; 30 is the strongest")


class AugmentSpec(SpecModel):
    """How the training images are changed at every step, on the training device; nothing is, by default."""

    crop_padding: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="pixels of black border added all around before a random crop back to image_size"
    )
    random_resized_crop: bool = Field(
        False, description="cut out a random 8–100 % of the area, 3:4 to 4:3, and scale it to image_size"
    )
    flip: Chance = Field(0.0, description="chance of a left-right mirror image; not for digits")
    rand_augment: RandAugmentSpec | None = Field(None, description="RandAugment, with torchvision's operations")
    trivial_augment: bool = Field(
        False, description="one random operation of random magnitude (TrivialAugment, wide; Müller and Hutter 2021)"
    )
    brightness: Share = Field(0.0, description="pixels are multiplied by a factor of up to 1 ± this")
    contrast: Share = Field(0.0, description="distances from the image's mean are multiplied by up to 1 ± this")
    saturation: Share = Field(0.0, description="distances from grey are multiplied by up to 1 ± this")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0, description="the hue turns by up to this share of the colour circle, either way"
    )
    erasing: Chance = Field(0.0, description="chance that a random 2–33 % of the area is erased (Zhong et al. 2017)")
    erasing_fill: Literal["black", "mean"] = Field(
        "black", description="what erased pixels become; mean: of the channel, as in timm and after it normalises"
    )
    mixup: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0, description="alpha of the Beta distribution that mixes pairs of images and labels (Zhang et al. 2018)"
    )
    cutmix: Annotated[float, Field(ge=0, le=10)] = Field(
        0.0, description="alpha of the Beta distribution for pasting a box of another image (Yun et al. 2019)"
    )

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        if self.crop_padding and self.random_resized_crop:
            raise ValueError("crop_padding and random_resized_crop are two ways to crop; choose one")
        return self

    @model_validator(mode="after")
    def _something_to_fill(self) -> Self:
        if self.erasing_fill != "black" and not self.erasing:
            raise ValueError("erasing_fill is of what erasing erases, and that is 0; set it, or leave erasing_fill out")
        return self

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        if self.rand_augment is not None and self.trivial_augment:
            raise ValueError("rand_augment and trivial_augment are two policies; choose one")
        return self
