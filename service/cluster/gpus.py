"""GPUs as Ray gives them out: a whole one is one that nobody shares, and a part is a part of one, never of two."""

from collections.abc import Iterable
from dataclasses import dataclass

ROUNDING = 1e-6  # ten tenths of a GPU are a GPU


@dataclass(frozen=True)
class FreeGpus:
    """What is free on one node: GPUs that nobody uses, and what is left of each that is shared."""

    whole: int
    shared: tuple[float, ...] = ()

    @classmethod
    def of(cls, free: float, shared: Iterable[float] = ()) -> "FreeGpus":
        """So many in all, of which these are parts; a rest that is no whole one is another part."""
        shared = tuple(shared)
        unshared = free - sum(shared)
        whole = int(unshared + ROUNDING)
        return cls(whole, _without_nothing((*shared, unshared - whole)))

    @property
    def total(self) -> float:
        """In GPUs."""
        return self.whole + sum(self.shared)

    def bundles(self, each: float) -> int:
        """How many times `each` can be had."""
        if each >= 1 - ROUNDING:
            return int(self.whole / each + ROUNDING)
        return self.whole * int(1 / each + ROUNDING) + sum(int(left / each + ROUNDING) for left in self.shared)

    def less(self, each: float, times: int = 1) -> "FreeGpus":
        """What is left once `each`, which must be there, is taken so often: a part where it just fits, as by Ray."""
        if each >= 1 - ROUNDING:
            return FreeGpus(self.whole - times * round(each), self.shared)
        left = self
        for _ in range(times):
            left = left._less_a_part(each)
        return left

    def more(self, each: float, times: int, *, of: float) -> "FreeGpus":
        """What is free once `each` is given back so often, on a node of so many in all. Which one a part belongs to is
        known only where there is no other; else it stays a part.
        """
        if each >= 1 - ROUNDING:
            return FreeGpus(self.whole + times * round(each), self.shared)
        if of <= 1:
            return FreeGpus.of(self.total + times * each)
        return FreeGpus(self.whole, (*self.shared, *[each] * times))

    def _less_a_part(self, each: float) -> "FreeGpus":
        fitting = [left for left in self.shared if left >= each - ROUNDING]
        if not fitting:
            return FreeGpus(self.whole - 1, _without_nothing((*self.shared, 1 - each)))
        shared = list(self.shared)
        shared.remove(min(fitting))
        return FreeGpus(self.whole, _without_nothing((*shared, min(fitting) - each)))


def left_of(gpus: float, taken: Iterable[float]) -> FreeGpus:
    """What is free of so many GPUs beside what is taken. Which part lies on which of them is not known: this is how
    they take the least, as Ray puts a part where it just fits.
    """
    left = FreeGpus.of(gpus)
    for each in sorted((each for each in taken if each > ROUNDING), reverse=True):
        left = left.less(each) if left.bundles(each) else FreeGpus(0 if each >= 1 - ROUNDING else left.whole)
    return left


def _without_nothing(shared: Iterable[float]) -> tuple[float, ...]:
    return tuple(sorted(left for left in shared if left > ROUNDING))
