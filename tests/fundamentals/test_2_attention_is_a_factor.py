"""What attention is: a number per channel and a number per place, which the feature map is multiplied with."""

import torch

from cbam_core.attention import CBAM, SE, create_attention


def test_attention_keeps_the_shape_of_the_map():
    """A module can stand anywhere between two layers, because what goes in and what comes out have one shape."""
    features = torch.randn(2, 64, 14, 14)  # N C H W: two images, 64 channels, 14 × 14 places
    assert CBAM(64)(features).shape == features.shape


def test_cbam_is_two_factors():
    """First one number per channel, then one number per place; the product of both with the map is the output."""
    features = torch.randn(2, 64, 14, 14)
    cbam = CBAM(64).eval()
    gates = cbam.maps(features)
    assert gates["channel"].shape == (2, 64, 1, 1)
    assert gates["spatial"].shape == (2, 1, 14, 14)
    assert torch.equal(cbam(features), features * gates["channel"] * gates["spatial"])


def test_a_fresh_cbam_halves_every_place():
    """Its spatial gate starts at exactly one half: at first no place is preferred; training has to find a reason."""
    features = torch.randn(2, 64, 14, 14)
    assert (CBAM(64).maps(features)["spatial"] == 0.5).all()


def test_se_looks_at_channels_only():
    """Squeeze-and-Excitation is CBAM's first half with one pool: it cannot tell one place from another."""
    features = torch.randn(2, 64, 14, 14)
    elsewhere = features.flip(3)
    se = SE(64)
    assert torch.allclose(se.maps(features)["channel"], se.maps(elsewhere)["channel"])


def test_names_make_modules():
    """A spec says a name and options; `none` is the plain network, the baseline of every comparison."""
    features = torch.randn(2, 64, 14, 14)
    assert torch.equal(create_attention("none", 64)(features), features)
    assert isinstance(create_attention("cbam", 64, reduction=8), CBAM)
