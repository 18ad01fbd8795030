"""How the fused kernels divide a feature map among programs, lay out their memory, and are launched.

All of it depends on the shape alone, and so do all last bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cbam_core.fused.driver import DirectLaunch, direct_launch

_PROGRAMS = 2048  # some sixteen for each multiprocessor of a large GPU
_ALIGNMENT = 64  # numbers: wide loads need 16 bytes
_INTEGERS = ("index", "channel", "places")
Argument = Tensor | int


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


@dataclass(frozen=True)
class Tiling:
    """`splits` programs of `warps` warps share the places of one image, `share` each, `rows` places at a time."""

    splits: int
    share: int
    rows: int
    warps: int

    @classmethod
    def of(
        cls, images: int, places: int, channels: int, *, warps: int, numbers: int = 16, least: int = 16, most: int = 16
    ) -> "Tiling":
        """Tiles of all `channels`, about `numbers` numbers a thread; shares of `least` places, at most `most` an image.

        Few images have more shares each, so that a GPU has as many programs.
        """
        rows = min(max(1, 32 * warps * numbers // power_of_two(channels)), power_of_two(places))
        tiles = -(-places // rows)
        splits = min(tiles, max(1, min(places // least, max(most, _PROGRAMS // images))))
        share = -(-tiles // splits) * rows
        return cls(splits=-(-places // share), share=share, rows=rows, warps=warps)


class Layout:
    """Arrays of fp32 and int32 numbers, by name, one after the other in one buffer of fp32."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._pieces: list[tuple[str, int, int]] = []
        self.numbers = 0
        for name, size in sizes.items():
            self._pieces.append((name, self.numbers, size))
            self.numbers += -(-size // _ALIGNMENT) * _ALIGNMENT

    def allocate(self, like: Tensor) -> Tensor:
        """A buffer on the device of `like`."""
        return torch.empty(self.numbers, dtype=torch.float32, device=like.device)

    def addresses(self, buffer: Tensor) -> list[int]:
        """Where each array begins, in bytes."""
        base = buffer.data_ptr()
        return [base + 4 * first for _, first, _ in self._pieces]

    def tensors(self, buffer: Tensor) -> dict[str, Tensor]:
        """Each array as a view, by its name."""
        views = {name: buffer[first : first + size] for name, first, size in self._pieces}
        return {name: view.view(torch.int32) if name in _INTEGERS else view for name, view in views.items()}


class Launch:
    """A kernel with its grid, its numbers and its constants, to be called with pointers.

    Triton looks at the type, the alignment and the value of every argument at every launch, which takes a slow host
    longer than a small kernel takes a GPU. So the first call, with tensors, goes by Triton; later ones, with addresses,
    go straight to what it has compiled, by CUDA's driver.
    """

    def __init__(
        self, kernel: Any, grid: Sequence[int], numbers: Sequence[float], *, warps: int, **constants: int | str
    ) -> None:
        self._kernel, self._grid, self._warps = kernel, (*grid, 1, 1)[:3], warps
        self._numbers, self._constants = tuple(numbers), constants
        self._tail = (*numbers, *constants.values())
        self._run: Any = None
        self._direct: DirectLaunch | None = None

    @property
    def compiled(self) -> bool:
        """Whether it can be called with addresses: never by Triton's interpreter."""
        return self._run is not None

    def __call__(self, *pointers: Argument) -> None:
        """Launch on the current stream."""
        if self._run is not None and isinstance(pointers[0], int):
            if self._direct is None or not self._direct(*pointers):  # type: ignore[arg-type]
                self._run(*pointers, *self._tail)
            return
        compiled = self._kernel[self._grid](*pointers, *self._numbers, **self._constants, num_warps=self._warps)
        if compiled is not None and self._run is None:
            self._run = compiled[self._grid]
            self._direct = direct_launch(compiled, self._grid, self._numbers, pointers[0].device.index)  # type: ignore[union-attr]


def aligned(*tensors: Tensor) -> bool:
    """Whether all begin at multiples of 16 bytes, as what PyTorch allocates does and a slice of it may not."""
    bits = 0
    for tensor in tensors:
        bits |= tensor.data_ptr()
    return bits % 16 == 0


def align(x: Tensor) -> Tensor:
    """`x`, copied where it does not begin at a multiple of 16 bytes: narrower loads would add up in another order."""
    return x if aligned(x) else x.clone()
