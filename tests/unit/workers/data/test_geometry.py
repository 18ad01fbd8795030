import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TV

from cbam_core.spec import AugmentSpec, DataSpec
from workers.data import load_dataset
from workers.data.augment.geometry import NUMBERS, erase, mix, padded_crop, place, random_resized_crop, tint
from workers.data.batches import Batches, RankShard


@pytest.fixture
def images():
    return torch.randint(256, (64, 3, 16, 16), generator=torch.Generator().manual_seed(0)).float()


@pytest.fixture
def numbers():
    return torch.rand(64, NUMBERS, generator=torch.Generator().manual_seed(1))


def test_a_padded_crop_is_torchvisions(images, numbers):
    cropped = padded_crop(images, 4, numbers[:, :2])
    for image, result, (top, left) in zip(images, cropped, (numbers[:, :2] * 9).long().tolist(), strict=True):
        assert torch.equal(result, TV.crop(TV.pad(image, [4]), top, left, 16, 16))


def test_a_resized_crop_shows_a_part_of_the_right_size_and_shape():
    """On an image whose pixels are their own coordinates, the result tells which part it shows."""
    size = 64
    ramp = torch.arange(size).float().add(0.5).div(size)
    coordinates = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size)])
    numbers = torch.rand(200, 4, generator=torch.Generator().manual_seed(0))
    crops = random_resized_crop(coordinates.expand(200, -1, -1, -1), numbers)
    width = crops[:, 0].amax((1, 2)) - crops[:, 0].amin((1, 2))
    height = crops[:, 1].amax((1, 2)) - crops[:, 1].amin((1, 2))
    area, ratio = width * height, width / height
    assert area.min() > 0.06
    assert area.max() < 1.0
    assert 0.25 < area.mean() < 0.6
    assert ratio.min() > 0.7
    assert ratio.max() < 1.4


def test_a_flip_is_a_mirror_image_for_its_share_of_the_images(images, numbers):
    flipped = place(images, AugmentSpec(flip=0.5), numbers)
    mirrored = [torch.equal(result, image.flip(2)) for image, result in zip(images, flipped, strict=True)]
    untouched = [torch.equal(result, image) for image, result in zip(images, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, untouched, strict=True))
    assert 20 < sum(mirrored) < 44


@pytest.mark.parametrize(
    ("field", "column", "theirs"),
    [
        ("brightness", 5, TV.adjust_brightness),
        ("contrast", 6, TV.adjust_contrast),
        ("saturation", 7, TV.adjust_saturation),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_change_of_colour_is_torchvisions(images, numbers, field, column, theirs, channels):
    changed = tint(images[:, :channels], AugmentSpec(**{field: 0.4}), numbers)
    for image, result, number in zip(images[:, :channels], changed, numbers[:, column].tolist(), strict=True):
        torch.testing.assert_close(result, theirs(image / 255, 0.6 + 0.8 * number) * 255, atol=1e-2, rtol=0)


def test_a_turn_of_the_hue_is_torchvisions(images, numbers):
    images[0], images[1, :2], images[2] = 0, 255, 77  # black, two channels alike, grey
    turned = tint(images, AugmentSpec(hue=0.5), numbers)
    for image, result, number in zip(images, turned, numbers[:, 8].tolist(), strict=True):
        torch.testing.assert_close(result, TV.adjust_hue(image / 255, number - 0.5) * 255, atol=1e-2, rtol=0)


def test_erasing_blackens_a_box_in_its_share_of_the_images(numbers):
    bright = torch.full((64, 1, 32, 32), 255.0)
    black = erase(bright, 0.5, numbers[:, :5], fill=torch.zeros(1, 1, 1, 1))[:, 0] == 0
    touched = black.flatten(1).any(1)
    assert 20 < touched.sum() < 44
    for box in black[touched]:
        rows, columns = box.any(1), box.any(0)
        assert box.sum() == rows.sum() * columns.sum(), "a box and nothing else"
    shares = black[touched].float().mean((1, 2))
    assert shares.min() > 0.005
    assert shares.max() < 0.36


def test_what_is_erased_by_the_mean_is_nothing_to_the_network_as_in_timm():
    """timm erases behind the normalisation, with zeros."""
    dataset = load_dataset(DataSpec(dataset="synthetic", image_size=16))
    spec = {"erasing": 1.0, "erasing_fill": "mean"}
    batches = [
        Batches(dataset, RankShard(0, 1, 8), seed=0, augment=AugmentSpec.model_validate(fields))
        for fields in (spec, {"erasing": 1.0}, {})
    ]
    erased, black, whole = (next(batch.train_from(0))[0] for batch in batches)
    changed = (black != whole).any(1, keepdim=True).expand_as(whole)
    assert (changed.flatten(1).any(1)).all()
    assert erased[changed].abs().max() < 1e-5
    assert torch.equal(erased[~changed], whole[~changed])


@pytest.mark.parametrize("spec", [AugmentSpec(mixup=0.8), AugmentSpec(cutmix=1.0), AugmentSpec(mixup=0.8, cutmix=1.0)])
def test_mixed_labels_are_the_shares_of_the_mixed_images(spec):
    """Images that are all 0 or all 1 by class: the mean pixel is the share of class 1."""
    labels = torch.arange(32) % 2
    images = labels.float().view(-1, 1, 1, 1).expand(-1, 1, 16, 16)
    shares = set()
    for step in range(30):
        mixed, targets = mix(images, labels, spec, num_classes=3, seed=(0, step))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1], atol=1e-5, rtol=0)
        torch.testing.assert_close(targets.sum(1), torch.ones(32))
        assert not targets[:, 2].any()
        shares.add(round(targets[0, 1].item(), 4))
    assert len(shares) > 5


def test_mixing_needs_no_even_batch():
    mixed, targets = mix(
        torch.ones(3, 1, 4, 4), torch.tensor([0, 1, 1]), AugmentSpec(mixup=1.0), num_classes=2, seed=(0, 0)
    )
    assert torch.equal(targets[2], F.one_hot(torch.tensor(1), 2).float())
    assert mixed.shape == (3, 1, 4, 4)
