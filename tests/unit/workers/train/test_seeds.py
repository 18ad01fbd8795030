"""Seeds apart: each moves what it is for, and nothing else."""

from itertools import islice

import pytest
import torch

from cbam_core.spec import AugmentSpec, DataSpec, TrainSpec
from workers.data import load_dataset
from workers.data.batches import Batches, RankShard

AUGMENT = AugmentSpec(flip=0.5, brightness=0.5)


def batches(train: TrainSpec):
    dataset = load_dataset(DataSpec(dataset="digits", image_size=8))
    made = Batches(
        dataset,
        RankShard(0, 1, 256),
        seed=train.seed_of("data"),
        augment_seed=train.seed_of("augment"),
        augment=AUGMENT,
    )
    return list(islice(made.train_from(0), 7))


@pytest.mark.parametrize(
    ("seeds", "same_order", "same_pixels"),
    [
        ({"init": 1}, True, True),
        ({"augment": 1}, True, False),
        ({"data": 1}, False, False),
        ({"init": 0, "data": 0, "augment": 0}, True, True),
        (None, True, True),
    ],
)
def test_order_and_augmentation_have_seeds_of_their_own(seeds, same_order, same_pixels):
    plain, apart = batches(TrainSpec()), batches(TrainSpec.model_validate({"seeds": seeds}))
    pairs = list(zip(plain, apart, strict=True))
    assert all(torch.equal(one[1], other[1]) for one, other in pairs) == same_order
    assert all(torch.equal(one[0], other[0]) for one, other in pairs) == same_pixels


@pytest.mark.parametrize("purpose", ["init", "data", "augment"])
def test_a_seed_that_is_not_given_apart_is_the_seed(purpose):
    assert TrainSpec(seed=7).seed_of(purpose) == 7
    assert TrainSpec.model_validate({"seed": 7, "seeds": {}}).seed_of(purpose) == 7
    assert TrainSpec.model_validate({"seed": 7, "seeds": {purpose: 0}}).seed_of(purpose) == 0


def test_first_weights_have_a_seed_of_their_own(tiny_spec, assign, train):
    starts = []
    for number, seeds in enumerate(({"init": 1}, {"data": 1, "augment": 1}, None)):
        assignment = assign(tiny_spec(train={"epochs": 1, "seeds": seeds}), experiment_id=f"e{number}")
        train(assignment, stop_when=lambda progress: progress.step == 0 and "pause")
        (folder,) = assignment.folder.checkpoints.glob("step-*")
        starts.append(torch.load(folder / "state.pt", weights_only=True)["learner"]["network"]["fc.weight"])
    assert torch.equal(starts[1], starts[2])
    assert not torch.equal(starts[0], starts[2])
