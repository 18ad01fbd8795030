"""The maps of Global Context: shares of a pool, which are no factor, and what the block does with what was pooled."""

import pytest
import torch

from cbam_core.attention import GlobalContext


@pytest.mark.parametrize("fusion", ["add", "scale"])
def test_the_maps_say_what_the_block_does(fusion):
    module = GlobalContext(8, 4, fusion=fusion)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
    x = torch.randn(2, 8, 3, 5)
    maps = module.maps(x)
    assert set(maps) == {"context", "added" if fusion == "add" else "channel"}
    pooled = (x * maps["context"]).mean((2, 3))
    transformed = module.transform(pooled)[:, :, None, None]
    expected = x + transformed if fusion == "add" else x * transformed.sigmoid()
    assert torch.allclose(module(x), expected, atol=1e-6)
    assert torch.allclose(module(x), x + maps["added"] if fusion == "add" else x * maps["channel"], atol=1e-6)
