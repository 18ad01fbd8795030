"""What a comparison has measured, as arrays: the input of `judge`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
"""Correct images of each seed, [S]."""
Correct = NDArray[np.bool_]
"""Whether an image was classified correctly, by seed and image, [S, N]."""


class Pairs(StrEnum):
    """Which differences are tested."""

    CONTROL = "control"  # every variant less the control
    ALL = "all"  # every two variants


@dataclass(frozen=True)
class Fixed:
    """The number of seeds was said beforehand (`Measured.planned`)."""


@dataclass(frozen=True)
class Precision:
    """Two stages (Stein 1945): `pilot` seeds give s, and s alone gives the number of seeds for `half_width`."""

    half_width: float
    """Wanted half width of the unadjusted 95 % interval, as a fraction (0.005 is half a point)."""
    pilot: int = 8
    most: int = 20
    """No more seeds than this, whatever the pilot says."""


@dataclass(frozen=True)
class Added:
    """Seeds were added after the means were seen, so only the anytime interval holds."""


Stopping = Fixed | Precision | Added


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """The results of one variant: one row for each seed, in the same order for every variant.

    Give `correct`, or, where predictions of single images are missing, `counts`. A run that diverged stays in, with its
    measured accuracy or that of chance.
    """

    correct: Correct | None = None
    """[S, N], the images in the same order for every variant and seed."""
    counts: Counts | None = None
    """[S], needed only without `correct`."""
    diverged: int = 0
    """How many of the S runs diverged or collapsed."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Measured:
    """A whole comparison: variants x paired seeds x images. Accuracies, margins and widths are fractions of 1."""

    control: str
    variants: Mapping[str, Scores]
    """By name, the control among them, in the order in which they are shown."""
    images: int
    """N, the images that each run was tested on."""
    groups: NDArray[np.int64] | None = None
    """[N], the group (patient, video) of each image; None: each is its own."""
    margin: float | None = None
    """Differences below it do not matter."""
    pairs: Pairs = Pairs.CONTROL
    planned: int = 0
    """Seeds that were planned; under `Precision` it is derived from the pilot, and this is not used."""
    stopping: Stopping = Fixed()
    unequal: tuple[str, ...] = ()
    """Fields that differ between the runs and were not varied: they make it *not comparable*."""
    unfinished: bool = False
    """Whether a block (all variants of one seed) has begun and not ended. Only finished blocks are in the arrays."""
