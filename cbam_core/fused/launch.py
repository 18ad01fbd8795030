"""How the fused kernels divide a feature map among programs. It depends on the shape alone, and so do all last bits."""

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor

_PROGRAMS = 2048  # some sixteen for each multiprocessor of a large GPU


@dataclass(frozen=True)
class Tiling:
    """`splits` programs share the places of one image, `share` each, a tile of `rows` places by `cols` channels a time."""

    splits: int
    share: int
    rows: int
    cols: int

    @classmethod
    def of(cls, images: int, places: int, channels: int, *, tile: int, cols: int | None = None) -> "Tiling":
        """Tiles of about `tile` numbers that span all channels, or `cols` of them side by side."""
        width = power_of_two(channels)
        blocks = 1 if cols is None else -(-channels // cols)
        width = width if cols is None else min(width, cols)
        rows = min(max(1, tile // width), power_of_two(places))
        tiles = -(-places // rows)
        splits = min(tiles, max(1, _PROGRAMS // (images * blocks)))
        share = -(-tiles // splits) * rows
        return cls(splits=-(-places // share), share=share, rows=rows, cols=width)


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


@contextlib.contextmanager
def on_device_of(x: Tensor) -> contextlib.AbstractContextManager[None]:  # type: ignore[misc]
    """Launch kernels on the GPU that holds `x`, and multiply matrices in fp32 whatever autocast says outside."""
    device = torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
    with device, torch.autocast(x.device.type, enabled=False):
        yield
