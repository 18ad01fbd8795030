"""Several tests of one comparison, taken together."""

from collections.abc import Sequence


def holm(p: Sequence[float]) -> tuple[float, ...]:
    """Return p adjusted by Holm (1979), in the given order.

    With p_(1) ≤ … ≤ p_(m), the adjusted p_(i) is the largest (m−j+1)·p_(j) of all j ≤ i, at most 1.

    To reject where it is below α keeps the chance of any false rejection at α, whatever the dependence.
    """
    order = sorted(range(len(p)), key=p.__getitem__)
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return tuple(adjusted)
