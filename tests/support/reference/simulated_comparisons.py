"""Comparisons that were never trained: results drawn from a model, so that the truth is known."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from service.comparisons.statistics import Fixed, Measured, Pairs, Scores, Stopping

BEFOREHAND = Fixed()
MANY = 1_000_000
"""So many images that counts are as good as continuous."""


def names(variants: int) -> list[str]:
    return ["plain", *(f"variant {number}" for number in range(1, variants))]


def of_counts(
    counts: NDArray[np.int64],
    images: int,
    *,
    margin: float | None = None,
    stopping: Stopping = BEFOREHAND,
    pairs: Pairs = Pairs.CONTROL,
    planned: int = 0,
) -> Measured:
    """A comparison of counts [variants, seeds]."""
    variants = {name: Scores(counts=row) for name, row in zip(names(len(counts)), counts, strict=True)}
    return Measured(
        control="plain",
        variants=variants,
        images=images,
        margin=margin,
        stopping=stopping,
        pairs=pairs,
        planned=planned,
    )


def draw_counts(
    random: np.random.Generator, shape: tuple[int, int, int], *, images: int, sigma: float, rho: float = 0.0
) -> NDArray[np.int64]:
    """Counts [replicates, variants, seeds] around 90 %, σ (a fraction) between seeds, correlated by ρ within a seed."""
    replicates, variants, seeds = shape
    shared = random.normal(0, np.sqrt(rho), (replicates, 1, seeds))
    noise = shared + random.normal(0, np.sqrt(1 - rho), (replicates, variants, seeds))
    return np.clip(np.rint(images * (0.9 + sigma * noise)), 0, images).astype(np.int64)


def draw_images(
    random: np.random.Generator,
    replicates: int,
    *,
    seeds: int = 8,
    variants: int = 4,
    images: int = 355,
    copies: int = 1,
    of_variant: float,
) -> Iterator[NDArray[np.bool_]]:
    """Matrices [variants, seeds, images · copies] on images that are drawn anew for each replicate.

    An image has a difficulty, and one for each variant besides, with standard deviation `of_variant` (logits): over all
    images that there could be the variants are equal. Copies share the difficulties of an image: they are a group.
    """
    for _ in range(replicates):
        difficulty = random.normal(2, 2, images) + of_variant * random.normal(size=(variants, 1, images))
        difficulty = difficulty.repeat(copies, axis=2)
        of_seed = 0.1 * random.normal(size=(variants, seeds, 1))
        of_cell = 0.7 * random.normal(size=(variants, seeds, images * copies))
        yield difficulty + of_seed + of_cell > random.logistic(size=(variants, seeds, images * copies))


def of_images(
    correct: NDArray[np.bool_],
    *,
    margin: float | None = None,
    groups: NDArray[np.int64] | None = None,
    stopping: Stopping = BEFOREHAND,
) -> Measured:
    """A comparison of matrices [variants, seeds, images]."""
    variants = {name: Scores(correct=matrix) for name, matrix in zip(names(len(correct)), correct, strict=True)}
    images = correct.shape[-1]
    return Measured(control="plain", variants=variants, images=images, margin=margin, groups=groups, stopping=stopping)
