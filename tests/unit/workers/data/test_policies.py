import pytest
import torch
from torchvision.transforms import v2

from cbam_core.spec import AugmentSpec
from workers.data.augment.policies import OPERATIONS, RAND_AUGMENT, TRIVIAL_AUGMENT, change

BINS = 31
POLICIES = [(v2.RandAugment(), RAND_AUGMENT), (v2.TrivialAugmentWide(), TRIVIAL_AUGMENT)]


def smooth_images(count, channels):
    """Colours that change over the image, on a side that is not the other: nothing is its own mirror image."""
    small = torch.rand(count, channels, 5, 4, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(small, (40, 32), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("policy", "strengths"), POLICIES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions_at_every_magnitude(name, policy, strengths, channels):
    magnitudes, signed = policy._AUGMENTATION_SPACE[name]
    theirs = magnitudes(BINS, 40, 32)
    images = smooth_images(2 * BINS, channels)
    levels = torch.arange(BINS).repeat(2) / (BINS - 1)
    signs = torch.tensor([1.0, -1.0]).repeat_interleave(BINS)
    ours = OPERATIONS[name](images, levels, signs, strengths)
    assert ours.dtype == torch.uint8
    same = []
    for number, image in enumerate(images):
        amount = 0.0 if theirs is None else round(float(theirs[number % BINS]), 5)  # 15.999999 pixels are 16
        amount *= signs[number].item() if signed else 1
        expected = policy._apply_image_or_video_transform(image, name, amount, policy.interpolation, policy._fill)
        same.append((ours[number].int() - expected.int()).abs() <= 1)
    assert torch.stack(same).float().mean() > 0.998, "a pixel between two neighbours may go to either"


def test_the_operations_are_those_of_torchvision():
    for policy, _ in POLICIES:
        assert list(OPERATIONS) == list(policy._AUGMENTATION_SPACE)


def test_every_image_draws_its_own_operation():
    """An image is changed in the same way alone and in a batch, and all operations come up."""
    images, numbers = smooth_images(200, 3), torch.rand(200, 1, 3, generator=torch.Generator().manual_seed(1))
    spec = AugmentSpec(trivial_augment=True)
    together = change(images, spec, numbers)
    for number in range(0, 200, 7):
        alone = change(images[number : number + 1], spec, numbers[number : number + 1])
        assert torch.equal(alone[0], together[number])
    drawn = (numbers[:, 0, 0] * len(OPERATIONS)).long()
    identity = drawn == list(OPERATIONS).index("Identity")
    assert 5 < identity.sum() < 30
    assert torch.equal(together[identity], images[identity])
    assert not torch.equal(together[~identity], images[~identity])


def test_randaugment_goes_through_its_operations_one_after_the_other():
    images, numbers = smooth_images(20, 3), torch.rand(20, 3, 3, generator=torch.Generator().manual_seed(1))
    whole = change(images, AugmentSpec.model_validate({"rand_augment": {"num_ops": 3}}), numbers)
    single = AugmentSpec.model_validate({"rand_augment": {"num_ops": 1}})
    for layer in range(3):
        images = change(images, single, numbers[:, layer : layer + 1])
    assert torch.equal(images, whole)
