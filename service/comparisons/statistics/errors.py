"""What the statistics refuse. The docstring is the default message."""

from cbam_core.errors import CbamError


class StatisticsError(CbamError):
    """These numbers cannot be judged."""


class MarginBelowResolution(StatisticsError):
    """The margin is smaller than one image."""

    def __init__(self, margin: float, images: int) -> None:
        super().__init__(
            f"a margin of {100 * margin:.3g} points is smaller than one image of {images} ({100 / images:.3g} points)"
        )


class UnpairedSeeds(StatisticsError):
    """The variants were not measured with the same seeds and images."""


class UnknownControl(StatisticsError):
    """The control is none of the variants."""


class UnequalImages(StatisticsError):
    """The results of a variant do not fit the number of images that was given."""


class TooFewSeeds(StatisticsError):
    """This needs at least two seeds."""


class UnusableProbe(StatisticsError):
    """A probe needs at least two rounds of control and variant alike, and positive images/s."""
