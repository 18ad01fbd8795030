"""Changes to the training images, for a whole batch at once, on the device where it lives.

Every operation is a plain function of the images and of uniform random numbers, one row per image. The numbers are
drawn for the global batch, so an image is changed in the same way on any number of ranks, and after any resume.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cbam_core.spec import AugmentSpec
from workers.data.augment.color import blend, grey, turn_hue
from workers.seeding import seed_of

NUMBERS = 14
"""Uniform random numbers per image: 0-3 crop, 4 flip, 5-8 colour, 9-13 erasing."""


def place(images: Tensor, spec: AugmentSpec, numbers: Tensor) -> Tensor:
    """Crop and flip: float N C H W in 0..255, `numbers` N NUMBERS in 0..1."""
    if spec.crop_padding:
        images = padded_crop(images, spec.crop_padding, numbers[:, 0:2])
    if spec.random_resized_crop:
        images = random_resized_crop(images, numbers[:, 0:4])
    if spec.flip:
        images = torch.where((numbers[:, 4] < spec.flip).view(-1, 1, 1, 1), images.flip(3), images)
    return images


def tint(images: Tensor, spec: AugmentSpec, numbers: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order: float N C H W in 0..255, `numbers` likewise."""
    amounts = 2 * numbers[:, 5:9] - 1
    if spec.brightness:
        images = blend(images, torch.zeros_like(images), 1 + spec.brightness * amounts[:, 0])
    if spec.contrast:
        images = blend(images, grey(images).mean((1, 2, 3), keepdim=True), 1 + spec.contrast * amounts[:, 1])
    if spec.saturation:
        images = blend(images, grey(images), 1 + spec.saturation * amounts[:, 2])
    if spec.hue:
        images = turn_hue(images, spec.hue * amounts[:, 3])
    return images


def padded_crop(images: Tensor, padding: int, numbers: Tensor) -> Tensor:
    """Pad with black and cut the original size out at a random place; `numbers` N 2."""
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4).permute(0, 2, 3, 1)  # N H W C
    offsets = (numbers * (2 * padding + 1)).long()
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = offsets[:, 1:] + torch.arange(width, device=images.device)
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_resized_crop(images: Tensor, numbers: Tensor) -> Tensor:
    """Scale a random part to the whole, bilinear: 8 to 100 % of the area, 3:4 to 4:3; `numbers` N 4."""
    left, top, width, height = part_of(numbers, 1.0)
    zero = torch.zeros_like(width)
    rows = [torch.stack([width, zero, 2 * left + width - 1], 1), torch.stack([zero, height, 2 * top + height - 1], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def part_of(numbers: Tensor, aspect: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Left, top, width and height, each N, of the parts that random_resized_crop cuts out, as shares of the sides.

    `numbers` N 4; `aspect` is the width of the whole by its height, as 3:4 to 4:3 speaks of pixels.
    """
    area = 0.08 + 0.92 * numbers[:, 0]
    ratio = torch.exp(math.log(3 / 4) + numbers[:, 1] * math.log(16 / 9)) / aspect
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    return numbers[:, 2] * (1 - width), numbers[:, 3] * (1 - height), width, height


def erase(images: Tensor, chance: float, numbers: Tensor, *, fill: Tensor) -> Tensor:
    """Fill a random box in some of the images (N C H W): 2 to 33 % of the area, 3:10 to 10:3.

    numbers  uniform random ones, N 5
    fill     what its pixels become, of every channel: 1 C 1 1
    """
    height, width = images.shape[2:]
    area = 0.02 + 0.31 * numbers[:, 1]
    ratio = torch.exp((2 * numbers[:, 2] - 1) * math.log(10 / 3))
    tall, wide = (area * ratio).sqrt().clamp(max=1) * height, (area / ratio).sqrt().clamp(max=1) * width
    inside = _box(numbers[:, 3] * (height - tall), tall, height)[:, :, None]
    inside = inside & _box(numbers[:, 4] * (width - wide), wide, width)[:, None, :]
    inside = inside & (numbers[:, 0] < chance)[:, None, None]
    return torch.where(inside[:, None], fill.to(images.dtype), images)


def mix(
    images: Tensor, labels: Tensor, spec: AugmentSpec, *, num_classes: int, seed: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix with the neighbour, by a coin where the spec has both; labels N become probabilities N K.

    Neighbours are the images 0 and 1, 2 and 3 … of the batch, so they are the same for any number of ranks whose share
    is even. `seed` is the training's seed and the step.
    """
    random = np.random.default_rng(seed_of(*seed, "mix"))
    paste = bool(spec.cutmix) and (not spec.mixup or random.random() < 0.5)
    alpha = spec.cutmix if paste else spec.mixup
    share = float(random.beta(alpha, alpha))
    neighbour = (torch.arange(len(labels), device=labels.device) ^ 1).clamp(max=len(labels) - 1)
    others = images[neighbour]
    if paste:
        height, width = images.shape[2:]
        side = math.sqrt(1 - share)
        top, bottom = _interval(float(random.random()), side, height)
        left, right = _interval(float(random.random()), side, width)
        images = images.clone()
        images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        images = share * images + (1 - share) * others
    ones = F.one_hot(labels, num_classes).float()
    return images, share * ones + (1 - share) * ones[neighbour]


def _box(start: Tensor, length: Tensor, size: int) -> Tensor:
    """N size: which of `size` pixels lie in [start, start + length)."""
    positions = torch.arange(size, device=start.device) + 0.5
    return (positions >= start[:, None]) & (positions < (start + length)[:, None])


def _interval(centre: float, share: float, size: int) -> tuple[int, int]:
    """A stretch of `share` of `size` pixels around `centre` (0..1), cut off at the borders."""
    half = share * size / 2
    return max(0, round(centre * size - half)), min(size, round(centre * size + half))
