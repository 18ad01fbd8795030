"""What a training lowers, against timm's, scikit-learn's and torch's own."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from torch.nn import functional as F

from cbam_core.spec import TrainSpec
from workers.train.loss import binary_cross_entropy, build_loss, class_weights

CLASSES = 5


@pytest.fixture
def scores():
    return torch.randn(16, CLASSES, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def labels():
    return torch.randint(CLASSES, (16,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_bce_is_timms(scores, labels, smoothing):
    loss = build_loss(TrainSpec(loss="bce", label_smoothing=smoothing), None)
    torch.testing.assert_close(loss(scores, labels), BinaryCrossEntropy(smoothing)(scores, labels), rtol=1e-12, atol=0)


def test_bce_of_mixed_labels_is_timms_of_those_that_its_mixup_smooths(scores, labels):
    mixed = 0.3 * F.one_hot(labels, CLASSES).double() + 0.7 * F.one_hot(labels.flip(0), CLASSES)
    loss = build_loss(TrainSpec(loss="bce", label_smoothing=0.1), None)(scores, mixed)
    expected = BinaryCrossEntropy()(scores, mixed * 0.9 + 0.1 / CLASSES)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_bce_in_half_precision_is_computed_in_single(scores, labels):
    half = scores.to(torch.bfloat16)
    expected = binary_cross_entropy(half.float(), labels, smoothing=0.1)
    assert binary_cross_entropy(half, labels, smoothing=0.1).equal(expected)


def test_balanced_weights_are_scikit_learns(labels):
    recipe = TrainSpec(class_weights="balanced")
    counts = labels.bincount(minlength=CLASSES)
    assert counts.min() > 0, "scikit-learn knows only classes that are there"
    expected = compute_class_weight("balanced", classes=np.arange(CLASSES), y=labels.numpy())
    torch.testing.assert_close(class_weights(recipe, labels, CLASSES).double(), torch.from_numpy(expected))
    assert class_weights(recipe, labels, CLASSES + 1)[CLASSES] == 0
    assert class_weights(TrainSpec(), labels, CLASSES) is None


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_weighted_loss_is_torchs_but_over_images_so_that_parts_of_a_batch_add_up(scores, labels, smoothing):
    recipe = TrainSpec(class_weights="balanced", label_smoothing=smoothing)
    weights = class_weights(recipe, labels, CLASSES).double()
    loss = build_loss(recipe, weights)
    theirs = F.cross_entropy(scores, labels, weight=weights, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(loss(scores, labels), theirs.mean(), rtol=1e-12, atol=0)
    parts = [loss(*pair) for pair in zip(scores.chunk(4), labels.chunk(4), strict=True)]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(scores, labels), rtol=1e-12, atol=0)


def test_the_weighted_loss_of_mixed_labels_weighs_each_share(scores, labels):
    recipe = TrainSpec(class_weights="balanced")
    weights = class_weights(recipe, labels, CLASSES).double()
    mixed = 0.3 * F.one_hot(labels, CLASSES).double() + 0.7 * F.one_hot(labels.flip(0), CLASSES)
    expected = SoftTargetCrossEntropy()(scores, mixed * weights)
    torch.testing.assert_close(build_loss(recipe, weights)(scores, mixed), expected, rtol=1e-12, atol=0)
