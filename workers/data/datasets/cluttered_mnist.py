"""Cluttered MNIST: one handwritten digit at a random place, among fragments of other digits (Mnih et al. 2014).

As `cluttered_digits`, of larger and more digits: 28×28 pixels as they are, on a canvas of 64×64. Every digit of mnist5k
is shown once. All is drawn from one fixed seed, so every experiment sees the same images.
"""

import numpy as np
import torch
from torch import Tensor

from workers.data.datasets.base import Split
from workers.data.datasets.cluttered_digits import paste
from workers.data.datasets.digits import CLASSES, stratified_test_mask
from workers.data.datasets.mnist5k import SIDE, read_mnist5k
from workers.data.datasets.source import Source
from workers.seeding import seed_of

CANVAS = 64
FRAGMENTS = 8
FRAGMENT = 12
"""Side of a fragment, in pixels; it is cut where strokes are, in the middle 20×20 pixels of a digit."""
_MARGIN = 4
PER_CLASS = 2
"""Digits of each class in a group, which lend fragments to each other and to no other canvas."""


def load_cluttered_mnist() -> Source:
    """4,000 training and 1,000 test canvases, 64×64, one channel.

    No two parts show a piece of the same digit, wherever val is cut: fragments come from digits of the same group, and
    a group stays in one part.
    """
    images, labels = read_mnist5k()
    test = stratified_test_mask(labels)
    train, groups = _canvases(images[~test], labels[~test], "train")
    held_out, _ = _canvases(images[test], labels[test], "test")
    return Source(train, held_out, CLASSES, groups=groups)


def _canvases(digits: Tensor, labels: Tensor, name: str) -> tuple[Split, Tensor]:
    """A canvas for each digit (N 1 28 28), and the number of its group (N)."""
    random = np.random.default_rng(seed_of("cluttered_mnist", name))
    pixels, classes = digits[:, 0].numpy(), labels.numpy()
    members = np.stack([random.permutation(np.flatnonzero(classes == label)) for label in range(len(CLASSES))])
    members = members.reshape(len(CLASSES), -1, PER_CLASS)  # of a class, a group, and its digits in it
    groups, places = np.empty_like(classes), np.empty_like(classes)
    groups[members] = np.arange(members.shape[1])[:, None]
    places[members] = np.arange(PER_CLASS)
    lenders = _lenders(members, classes, groups, places, random)
    corners = random.integers(_MARGIN, SIDE - _MARGIN - FRAGMENT + 1, size=(*lenders.shape, 2))
    canvases = np.zeros((len(pixels), CANVAS, CANVAS), dtype=np.uint8)
    for number, canvas in enumerate(canvases):
        for lender, (top, left) in zip(lenders[number], corners[number], strict=True):
            paste(canvas, pixels[lender, top : top + FRAGMENT, left : left + FRAGMENT], random)
        paste(canvas, pixels[number], random)
    return Split(torch.from_numpy(canvases).unsqueeze(1), labels), torch.from_numpy(groups)


def _lenders(
    members: np.ndarray, classes: np.ndarray, groups: np.ndarray, places: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """For each canvas the digits whose fragments it shows, never its own: N FRAGMENTS.

    Every class lends as often, that of the canvas's digit too, so that the clutter does not tell the label.
    """
    shape = (len(classes), FRAGMENTS)
    lending = random.integers(len(CLASSES), size=shape)
    steps = random.integers(1, PER_CLASS, size=shape)  # from the own place to that of another digit of its class
    drawn = random.integers(PER_CLASS, size=shape)
    place = np.where(lending == classes[:, None], (places[:, None] + steps) % PER_CLASS, drawn)
    lent: np.ndarray = members[lending, groups[:, None], place]
    return lent
