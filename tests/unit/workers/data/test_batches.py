from itertools import islice

import pytest
import torch

from cbam_core.errors import DataError
from cbam_core.spec import AugmentSpec, DataSpec
from workers.data import load_dataset
from workers.data.batches import Batches, RankShard
from workers.data.datasets.base import Dataset, Split


@pytest.fixture
def numbered():
    """Every image is its own number, so that we see which images a batch holds."""
    numbers = torch.arange(103)
    images = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    val, test = Split(images[:37], numbers[:37]), Split(images[:23], numbers[:23])
    return Dataset(Split(images, numbers), val, test, ("a",), mean=(0.0,), std=(1.0,))


def labels_of(batches, count):
    return [labels for _, labels in islice(batches, count)]


def test_an_epoch_takes_every_image_at_most_once_in_a_new_order(numbered):
    batches = Batches(numbered, RankShard(0, 1, 20), seed=0)
    assert batches.steps_per_epoch == 5
    taken = torch.cat(labels_of(batches.train_from(0), 10))
    first, second = taken[:100].tolist(), taken[100:].tolist()
    assert len(set(first)) == len(set(second)) == 100
    assert first != second


def test_images_and_labels_stay_together(numbered):
    images, labels = next(Batches(numbered, RankShard(0, 1, 20), seed=0).train_from(0))
    assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), labels)


@pytest.mark.parametrize("world_size", [2, 4, 5])
def test_a_global_batch_is_the_same_for_any_number_of_ranks(numbered, world_size):
    alone = labels_of(Batches(numbered, RankShard(0, 1, 20), seed=3).train_from(0), 7)
    ranks = [
        labels_of(Batches(numbered, RankShard(rank, world_size, 20), seed=3).train_from(0), 7)
        for rank in range(world_size)
    ]
    for step, labels in enumerate(alone):
        assert torch.equal(torch.cat([rank[step] for rank in ranks]), labels)


@pytest.mark.parametrize("policy", [{"rand_augment": {}}, {"trivial_augment": True}, {"hue": 0.3, "saturation": 0.3}])
def test_an_image_changes_alike_on_any_number_of_ranks_and_from_any_first_step(policy):
    dataset, spec = load_dataset(DataSpec(dataset="synthetic", image_size=16)), AugmentSpec.model_validate(policy)
    alone = Batches(dataset, RankShard(0, 1, 20), seed=3, augment=spec).train_from(4)
    later = Batches(dataset, RankShard(0, 1, 20), seed=3, augment=spec).train_from(5)
    ranks = [Batches(dataset, RankShard(rank, 2, 20), seed=3, augment=spec).train_from(4) for rank in range(2)]
    first = next(alone)[0]
    assert torch.equal(torch.cat([next(rank)[0] for rank in ranks]), first)
    assert torch.equal(next(alone)[0], next(later)[0])


def test_beginning_at_a_step_gives_what_that_step_would_have_had(numbered):
    batches = Batches(numbered, RankShard(0, 1, 20), seed=3)
    whole = labels_of(batches.train_from(0), 13)
    for step in (0, 1, 5, 12):
        assert torch.equal(next(batches.train_from(step))[1], whole[step])


def test_the_seed_decides_the_order(numbered):
    orders = {
        tuple(next(Batches(numbered, RankShard(0, 1, 20), seed=seed).train_from(0))[1].tolist()) for seed in range(5)
    }
    assert len(orders) == 5


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
@pytest.mark.parametrize(("part", "count"), [("val", 37), ("test", 23)])
def test_every_image_is_evaluated_once_over_all_ranks_and_the_ranks_keep_step(numbered, world_size, part, count):
    ranks = [Batches(numbered, RankShard(rank, world_size, 16), seed=0) for rank in range(world_size)]
    brought = [list(rank.evaluated(part)) for rank in ranks]
    assert len({len(batches) for batches in brought}) == 1
    taken = [[label for _, labels in batches for label in labels.tolist()] for batches in brought]
    assert sorted(label for labels in taken for label in labels) == list(range(count))
    assert [rank.places(part).tolist() for rank in ranks] == taken, "where each stands in its part"


def test_a_batch_larger_than_the_dataset_is_told_at_once(numbered):
    with pytest.raises(DataError, match="103 images, fewer than global_batch_size"):
        Batches(numbered, RankShard(0, 1, 104), seed=0)
