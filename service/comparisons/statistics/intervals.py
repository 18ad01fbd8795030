"""An interval of numbers, and a ratio with one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """All numbers from `low` to `high`; both may be infinite where the data bound nothing."""

    low: float
    high: float

    @classmethod
    def around(cls, center: float, radius: float) -> "Interval":
        """Return center ± radius."""
        return cls(center - radius, center + radius)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def within(self, margin: float) -> bool:
        """Return whether every number of it is nearer to 0 than `margin`."""
        return -margin < self.low and self.high < margin


@dataclass(frozen=True)
class Ratio:
    """Images/s of the variant over those of the control."""

    value: float
    interval: Interval
    rounds: int
