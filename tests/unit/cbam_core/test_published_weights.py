"""Networks that start from published weights, and how images are normalised for them."""

import pytest
import timm
import torch
from timm.data.loader import adapt_to_chs
from torch.nn import functional as F

from cbam_core.backbones import WITH_PUBLISHED_WEIGHTS
from cbam_core.errors import UnknownBackbone, WeightsUnavailable
from cbam_core.networks import build_network, published_normalisation
from cbam_core.spec import ModelSpec
from tests.support.published_weights import publish, use_cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    return use_cache(tmp_path, monkeypatch)


@pytest.mark.parametrize(("backbone", "name"), [("resnet18", "resnet18"), ("timm:regnetx_002", "regnetx_002")])
def test_pretrained_starts_from_what_timm_publishes(cache, backbone, name):
    published = publish(cache, name)
    spec = ModelSpec.model_validate({"backbone": backbone, "pretrained": True, "attention": {"type": "cbam"}})
    loaded = build_network(spec, 10).state_dict()
    taken = [key for key in published if key in loaded and torch.equal(published[key], loaded[key])]
    assert len(taken) == len(published) - 2  # all but the head, which has another width
    assert any(".attention." in key or ".se." in key for key in loaded)
    seeded = build_network(spec, 10, seed=5).state_dict()
    fresh = [key for key in loaded if loaded[key].is_floating_point() and not torch.equal(loaded[key], seeded[key])]
    assert {"fc.weight", "head.fc.weight"} & set(fresh), "the head and attention are drawn from the seed"
    assert not set(taken) & set(fresh)


@pytest.mark.parametrize(("backbone", "name"), [("resnet18", "resnet18"), ("timm:resnet26", "resnet26")])
def test_a_grey_image_meets_the_filters_as_a_colour_image_without_colour(cache, backbone, name):
    filters = publish(cache, name)["conv1.weight"]
    network = build_network(ModelSpec(backbone=backbone, pretrained=True), 10, in_channels=1)
    grey = torch.rand(2, 1, 32, 32)
    seen = F.conv2d(grey, network.get_parameter("conv1.weight"))
    torch.testing.assert_close(seen, F.conv2d(grey.expand(2, 3, 32, 32), filters))


def test_weights_that_cannot_be_fetched(cache):
    spec = ModelSpec(backbone="resnet18", pretrained=True)
    with pytest.raises(WeightsUnavailable, match="resnet18"):
        build_network(spec, 10)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "backbone", [*sorted(WITH_PUBLISHED_WEIGHTS), "timm:resnet50.a1_in1k", "timm:tf_efficientnet_lite0", "timm:dpn68"]
)
def test_images_are_normalised_as_timm_does_for_the_weights(backbone, channels):
    ours = published_normalisation(ModelSpec(backbone=backbone, pretrained=True), channels)
    with torch.device("meta"):
        theirs = timm.data.resolve_model_data_config(timm.create_model(backbone.removeprefix("timm:")))
    assert ours.mean == pytest.approx(adapt_to_chs(theirs["mean"], channels))
    assert ours.std == pytest.approx(adapt_to_chs(theirs["std"], channels))


def test_random_weights_want_no_normalisation_of_their_own():
    assert published_normalisation(ModelSpec(backbone="resnet18")) is None


def test_weights_that_timm_does_not_know_have_no_normalisation():
    with pytest.raises(UnknownBackbone, match="no_such_tag"):
        published_normalisation(ModelSpec(backbone="timm:resnet50.no_such_tag", pretrained=True))
