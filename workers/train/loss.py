"""What a training lowers: from class scores and targets to one number."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cbam_core.spec import TrainSpec

Loss = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of scores (N K) for targets, which are classes (N) or probabilities (N K)."""


def build_loss(recipe: TrainSpec, weights: Tensor | None) -> Loss:
    """The loss of the recipe. `weights` (K) are its `class_weights`."""
    smoothing = recipe.label_smoothing
    if recipe.loss == "bce":
        return lambda scores, targets: binary_cross_entropy(scores, targets, smoothing=smoothing)
    if weights is None:
        return lambda scores, targets: F.cross_entropy(scores, targets, label_smoothing=smoothing)
    return lambda scores, targets: weighted_cross_entropy(scores, targets, weights, smoothing=smoothing)


def class_weights(recipe: TrainSpec, labels: Tensor, classes: int) -> Tensor | None:
    """What an image of each of K classes counts, of the training's N labels; None where the recipe has all alike.

    N / (K n) for a class of n images, as scikit-learn's `balanced`; 0 for one of none.
    """
    if recipe.class_weights == "none":
        return None
    counts = torch.bincount(labels.cpu(), minlength=classes)
    return torch.where(counts > 0, len(labels) / (classes * counts.clamp(min=1)), 0.0)


def weighted_cross_entropy(scores: Tensor, targets: Tensor, weights: Tensor, *, smoothing: float) -> Tensor:
    """Over the number of images, not over the sum of their weights as torch has it.

    So the mean over the parts of a batch, and over workers, is that of the whole batch.
    """
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    weights = weights.to(scores.dtype)
    total = F.cross_entropy(scores, targets, weight=weights, label_smoothing=smoothing, reduction="sum")
    return total / len(scores)


def binary_cross_entropy(scores: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
    """A logistic loss for every class, averaged over images and classes; smoothed as for the cross-entropy."""
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    if targets.ndim == 1:
        targets = F.one_hot(targets, scores.shape[1])
    wanted = targets.to(scores.dtype) * (1 - smoothing) + smoothing / scores.shape[1]
    return F.binary_cross_entropy_with_logits(scores, wanted)
