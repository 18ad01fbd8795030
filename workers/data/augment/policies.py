"""RandAugment (Cubuk et al. 2020) and TrivialAugment (Müller and Hutter 2021), for a whole batch at once.

The operations, their strengths and their arithmetic on uint8 are torchvision's. Every image draws its own; those that
drew the same one are changed together, each by its own amount, so a batch costs 14 operations whatever its size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TV

from cbam_core.spec import AugmentSpec
from workers.data.augment.color import blend, grey
from workers.data.transfer import constant, send

NUMBERS = 3
"""Uniform random numbers per image and operation: which, how strong, in which direction."""
_STRONGEST = 30
"""Magnitudes are whole numbers from 0 to this."""
_TERMS = ("xx", "xy", "x", "yx", "yy", "y")
_SMOOTHING = tuple(weight / 13 for weight in (1, 1, 1, 1, 5, 1, 1, 1, 1))
"""A kernel of 3 by 3 pixels, row by row."""


@dataclass(frozen=True)
class Strengths:
    """What the strongest magnitude means. `translate` is in pixels, or a share of the side where it is below 1."""

    shear: float
    translate: float
    degrees: float
    blend: float
    bits: int


RAND_AUGMENT = Strengths(shear=0.3, translate=150 / 331, degrees=30, blend=0.9, bits=4)
TRIVIAL_AUGMENT = Strengths(shear=0.99, translate=32, degrees=135, blend=0.99, bits=6)
Operation = Callable[[Tensor, Tensor, Tensor, Strengths], Tensor]
"""uint8 images N C H W, levels N in 0..1 and signs N, to uint8 images."""


def layers(spec: AugmentSpec) -> int:
    """How many operations every image passes through."""
    if spec.rand_augment is not None:
        return spec.rand_augment.num_ops
    return int(spec.trivial_augment)


def change(images: Tensor, spec: AugmentSpec, numbers: Tensor) -> Tensor:
    """Pass uint8 images N C H W through the spec's operations; `numbers` is N layers NUMBERS, on the CPU."""
    strengths = TRIVIAL_AUGMENT if spec.rand_augment is None else RAND_AUGMENT
    for layer in numbers.unbind(1):
        which, level, sign = layer.unbind(1)
        magnitudes = (level * (_STRONGEST + 1)).floor()
        if spec.rand_augment is not None:
            magnitudes = torch.full_like(level, spec.rand_augment.magnitude)
        signs = torch.where(sign < 0.5, -1.0, 1.0)
        chosen = (which * len(OPERATIONS)).long()
        images = _apply(images, chosen, magnitudes / _STRONGEST, signs, strengths)
    return images


def _apply(images: Tensor, chosen: Tensor, levels: Tensor, signs: Tensor, strengths: Strengths) -> Tensor:
    """Every image through the operation it has chosen. Groups form on the CPU, so no GPU is asked for their sizes."""
    changed = images.clone()
    for number, operation in enumerate(OPERATIONS.values()):
        members = (chosen == number).nonzero()[:, 0]
        if len(members):
            where, level, sign = (send(values, images.device) for values in (members, levels[members], signs[members]))
            changed[where] = operation(images[where], level, sign, strengths)
    return changed


def _identity(images: Tensor, _levels: Tensor, _signs: Tensor, _strengths: Strengths) -> Tensor:
    return images


def _shear_x(images: Tensor, levels: Tensor, signs: Tensor, strengths: Strengths) -> Tensor:
    slope = signs * levels * strengths.shear
    return _moved(images, xy=slope, x=slope * images.shape[2] / 2)


def _shear_y(images: Tensor, levels: Tensor, signs: Tensor, strengths: Strengths) -> Tensor:
    slope = signs * levels * strengths.shear
    return _moved(images, yx=slope, y=slope * images.shape[3] / 2)


def _translate_x(images: Tensor, levels: Tensor, signs: Tensor, strengths: Strengths) -> Tensor:
    return _moved(images, x=-_pixels(levels, signs, strengths, images.shape[3]))


def _translate_y(images: Tensor, levels: Tensor, signs: Tensor, strengths: Strengths) -> Tensor:
    return _moved(images, y=-_pixels(levels, signs, strengths, images.shape[2]))


def _pixels(levels: Tensor, signs: Tensor, strengths: Strengths, side: int) -> Tensor:
    most = strengths.translate * side if strengths.translate < 1 else strengths.translate
    return signs * (levels * most).floor()


def _rotate(images: Tensor, levels: Tensor, signs: Tensor, strengths: Strengths) -> Tensor:
    angle = signs * levels * math.radians(strengths.degrees)
    return _moved(images, xx=angle.cos(), xy=-angle.sin(), yx=angle.sin(), yy=angle.cos())


def _moved(images: Tensor, **terms: Tensor) -> Tensor:
    """Every pixel from (xx·X + xy·Y + x, yx·X + yy·Y + y), in pixels from the middle; nearest one, black outside."""
    count, _, height, width = images.shape
    one, zero = (torch.full((count,), value, device=images.device) for value in (1.0, 0.0))
    xx, xy, x, yx, yy, y = (terms.get(name, one if name in ("xx", "yy") else zero) for name in _TERMS)
    rows = [
        torch.stack([xx, xy * height / width, 2 * x / width], 1),
        torch.stack([yx * width / height, yy, 2 * y / height], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)


def _brightness(images: Tensor, levels: Tensor, signs: Tensor, strengths: Strengths) -> Tensor:
    return _blended(images, torch.zeros_like(images), 1 + signs * levels * strengths.blend)


def _colour(images: Tensor, levels: Tensor, signs: Tensor, strengths: Strengths) -> Tensor:
    return _blended(images, grey(images.float()).floor(), 1 + signs * levels * strengths.blend)


def _contrast(images: Tensor, levels: Tensor, signs: Tensor, strengths: Strengths) -> Tensor:
    mean = grey(images.float()).floor().mean((1, 2, 3), keepdim=True)
    return _blended(images, mean, 1 + signs * levels * strengths.blend)


def _sharpness(images: Tensor, levels: Tensor, signs: Tensor, strengths: Strengths) -> Tensor:
    return _blended(images, _smoothed(images), 1 + signs * levels * strengths.blend)


def _smoothed(images: Tensor) -> Tensor:
    """torchvision's `adjust_sharpness(images, 0.0)`, which copies its kernel to the device at every call."""
    channels, height, width = images.shape[1:]
    if height <= 2 or width <= 2:
        return images
    kernel = constant(_SMOOTHING, images.device).view(1, 1, 3, 3).expand(channels, 1, 3, 3)
    smoothed = images.clone()
    smoothed[:, :, 1:-1, 1:-1] = F.conv2d(images.float(), kernel, groups=channels).round().clamp(0, 255)
    return smoothed


def _blended(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    return blend(images.float(), others.float(), factors).to(torch.uint8)


def _posterize(images: Tensor, levels: Tensor, _signs: Tensor, strengths: Strengths) -> Tensor:
    dropped = (levels * strengths.bits).round().to(torch.uint8).view(-1, 1, 1, 1)
    return (images >> dropped) << dropped


def _solarize(images: Tensor, levels: Tensor, _signs: Tensor, _strengths: Strengths) -> Tensor:
    return torch.where(images >= 255 * (1 - levels.view(-1, 1, 1, 1)), 255 - images, images)


def _auto_contrast(images: Tensor, _levels: Tensor, _signs: Tensor, _strengths: Strengths) -> Tensor:
    changed: Tensor = TV.autocontrast(images)
    return changed


def _equalize(images: Tensor, _levels: Tensor, _signs: Tensor, _strengths: Strengths) -> Tensor:
    changed: Tensor = TV.equalize(images)
    return changed


OPERATIONS: dict[str, Operation] = {
    "Identity": _identity,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": _brightness,
    "Color": _colour,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
}
"""By torchvision's names."""
