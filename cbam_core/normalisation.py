"""How pixels become what a network takes."""

from dataclasses import dataclass
from statistics import fmean
from typing import Self


@dataclass(frozen=True)
class Normalisation:
    """Per channel, for pixels in 0..1: a network takes (pixels - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def over(self, channels: int) -> Self:
        """The same for images of so many channels: where that is another number, the average for each of them.

        So does timm (`timm.data.loader.adapt_to_chs`), whose networks then begin with filters that are made from those
        for red, green and blue: added up for a grey image, else repeated.
        """
        if channels == len(self.mean):
            return self
        return type(self)((fmean(self.mean),) * channels, (fmean(self.std),) * channels)
