import torch
from sklearn import datasets

from cbam_core.spec import DataSpec
from workers.data import load_dataset
from workers.data.datasets.digits import load_digits, read_digits


def test_the_digits_are_scikit_learns():
    images, labels = read_digits()
    theirs = datasets.load_digits()
    assert torch.equal(labels, torch.from_numpy(theirs.target))
    assert torch.equal((images[:, 0].double() * 16 / 255).round(), torch.from_numpy(theirs.images))


def test_a_fifth_of_every_class_is_for_the_test_and_nothing_is_in_both():
    dataset = load_digits()
    images, labels = read_digits()
    together = torch.cat([dataset.train.images, dataset.test.images]).flatten(1).tolist()
    assert sorted(together) == sorted(images.flatten(1).tolist())
    assert torch.equal(dataset.test.labels.bincount(), labels.bincount() // 5)


def test_the_split_and_the_pixels_never_change():
    first, second = (load_dataset(DataSpec(dataset="digits", image_size=16)) for _ in range(2))
    assert torch.equal(first.val.images, second.val.images)
    assert torch.equal(first.test.images, second.test.images)
    assert first.test.images.shape == (355, 1, 16, 16)
    assert first.test.images.dtype == torch.uint8


def test_normalised_by_the_training_images():
    dataset = load_dataset(DataSpec(dataset="digits", image_size=12))
    pixels = dataset.train.images.double() / 255
    torch.testing.assert_close(dataset.mean[0], pixels.mean().item(), rtol=1e-12, atol=0)
    torch.testing.assert_close(dataset.std[0], pixels.std(correction=0).item(), rtol=1e-12, atol=0)
