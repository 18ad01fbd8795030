"""Cluttered digits: one handwritten digit at a random place and scale, among fragments of other digits.

A classic test of spatial attention (Mnih et al. 2014 used the like). All is drawn from one fixed seed, so every
experiment sees the same images; those of the test are made from digits that no training image holds a piece of.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from workers.data.datasets.base import Split
from workers.data.datasets.digits import CLASSES, read_digits, stratified_test_mask
from workers.data.datasets.source import Source
from workers.seeding import seed_of

TRAIN_IMAGES = 8000
TEST_IMAGES = 2000
FRAGMENTS = 6
SMALLEST, LARGEST = 0.3, 0.5
"""The side of the digit, as a share of the canvas."""
_FRAGMENT = 4
"""Pixels of a digit's 8×8 that a fragment shows, a side."""


def load_cluttered_digits(image_size: int) -> Source:
    """8,000 training and 2,000 test canvases of `image_size`, one channel; canvases of one digit stay in one part."""
    images, labels = read_digits()
    test = stratified_test_mask(labels)
    train, digits = _canvases(images[~test], labels[~test], image_size, count=TRAIN_IMAGES, name="train")
    held_out, _ = _canvases(images[test], labels[test], image_size, count=TEST_IMAGES, name="test")
    return Source(train, held_out, CLASSES, groups=digits)


def _canvases(digits: Tensor, labels: Tensor, size: int, *, count: int, name: str) -> tuple[Split, Tensor]:
    """The canvases, and which of the digits each shows."""
    random = np.random.default_rng(seed_of("cluttered_digits", name, size))
    canvases = np.zeros((count, size, size), dtype=np.uint8)
    chosen = random.integers(len(digits), size=count)
    sides = random.integers(round(SMALLEST * size), round(LARGEST * size) + 1, size=count)
    fragment_side = max(2, round((SMALLEST + LARGEST) / 2 * size * _FRAGMENT / 8))
    fragments = _fragments(digits, fragment_side, random)
    for canvas in canvases:
        for fragment in fragments[random.integers(len(fragments), size=FRAGMENTS)]:
            paste(canvas, fragment, random)
    for side in np.unique(sides):
        members = np.flatnonzero(sides == side)
        for number, digit in zip(members, _scaled(digits[chosen[members]], int(side)), strict=True):
            paste(canvases[number], digit, random)
    shown = torch.from_numpy(chosen)
    return Split(torch.from_numpy(canvases).unsqueeze(1), labels[shown]), shown


def _fragments(digits: Tensor, side: int, random: np.random.Generator) -> np.ndarray:
    """One random piece of every digit, scaled as the digits are: N side side."""
    corners = random.integers(8 - _FRAGMENT + 1, size=(len(digits), 2))
    pieces = [
        digit[:, top : top + _FRAGMENT, left : left + _FRAGMENT]
        for digit, (top, left) in zip(digits, corners, strict=True)
    ]
    return _scaled(torch.stack(pieces), side)


def _scaled(images: Tensor, side: int) -> np.ndarray:
    """uint8 N 1 h w to uint8 N side side."""
    larger = F.interpolate(images.float(), (side, side), mode="bilinear", align_corners=False)
    return larger.round().clamp(0, 255).to(torch.uint8)[:, 0].numpy()


def paste(canvas: np.ndarray, patch: np.ndarray, random: np.random.Generator) -> None:
    """Lay `patch` somewhere on `canvas`; the lighter pixel wins."""
    side = len(patch)
    top, left = random.integers(len(canvas) - side + 1, size=2)
    place = canvas[top : top + side, left : left + side]
    np.maximum(place, patch, out=place)
