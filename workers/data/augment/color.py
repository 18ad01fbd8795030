"""Changes of colour for a batch of images, by a factor or a turn for each of them: float N C H W in 0..255."""

import torch
from torch import Tensor

from workers.data.transfer import constant

_GREY = (0.2989, 0.587, 0.114)
"""How bright red, green and blue look (ITU-R BT.601), as torchvision rounds it."""


def blend(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    """`images` where the factor (N) is 1, `others` where it is 0, and beyond either on the same line."""
    shares = factors.view(-1, 1, 1, 1)
    return (images * shares + others * (1 - shares)).clamp(0, 255)


def grey(images: Tensor) -> Tensor:
    """N 1 H W: how bright each pixel looks."""
    if images.shape[1] == 1:
        return images
    return torch.einsum("nchw,c->nhw", images, constant(_GREY, images.device))[:, None]


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of RGB images by a share (N) of the colour circle, at the same value and saturation.

    A channel of a colour of hue h, value v and chroma c is v - c · max(0, min(k, 4 - k, 1)), where k is
    (n + 6h) mod 6 and n is 5, 3, 1 for red, green, blue.
    """
    value, largest = images.max(1)
    chroma = value - images.amin(1)
    red, green, blue = images.unbind(1)
    sides = torch.stack([green - blue, blue - red, red - green], 1).gather(1, largest[:, None])[:, 0]
    sixths = sides / chroma.clamp(min=1e-6) + 2 * largest + 6 * turns.view(-1, 1, 1)
    offsets = constant((5.0, 3.0, 1.0), images.device).view(1, 3, 1, 1)
    place = (offsets + sixths[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(place, 4 - place).clamp(0, 1)
