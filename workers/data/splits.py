"""Which training images become val: a function of the seed, the labels and the groups alone."""

import hashlib

import torch
from torch import Tensor

from cbam_core.datasets import cut_count
from cbam_core.errors import DataError
from cbam_core.spec import ValSpec
from workers.seeding import generator_of

_CHUNK = 4096


def val_mask(labels: Tensor, val: ValSpec, groups: Tensor | None = None) -> Tensor:
    """True for the images (N) that become val. `groups` (N) holds the same number for what must stay together.

    Raises DataError where nothing can be cut off.
    """
    return cut(labels, val.fraction, "val", val.seed, stratified=val.stratified, groups=groups)


def cut(
    labels: Tensor, fraction: float, *seed: int | str, stratified: bool = True, groups: Tensor | None = None
) -> Tensor:
    """True for `fraction` of the images (N), rounded to whole ones, drawn by `seed`; of every class the same fraction.

    The whole ones are shared out by largest remainders, so their number follows from N alone. Groups are taken whole,
    by the class of their first image, while they fit. Something of every class stays. Raises DataError.
    """
    members = torch.arange(len(labels)) if groups is None else groups.unique(return_inverse=True)[1]
    count = int(members.max()) + 1 if len(labels) else 0
    first = torch.full((count,), len(labels)).scatter_reduce(0, members, torch.arange(len(labels)), "amin")
    stratum = labels[first] if stratified else torch.zeros(count, dtype=torch.int64)
    sizes = torch.bincount(members, minlength=count)
    wanted = _shares(torch.bincount(stratum[members]), torch.bincount(stratum), fraction)
    generator = generator_of(*seed)
    chosen = torch.zeros(count, dtype=torch.bool)
    for label, number in enumerate(wanted):
        units = torch.nonzero(stratum == label).flatten()
        units = units[torch.randperm(len(units), generator=generator)]
        chosen[_that_fit(units, sizes, number)] = True
    mask = chosen[members] if count else torch.zeros(0, dtype=torch.bool)
    if not mask.any():
        raise DataError(
            f"no image can be cut off the {len(labels)} there are (fraction {fraction:g}): give more images, a larger "
            "data.val.fraction, or smaller groups"
        )
    return mask


def joined(one: Tensor, other: Tensor) -> Tensor:
    """The finest groups (N) that keep together what either of two groupings (N each) keeps together."""
    together: Tensor = one.unique(return_inverse=True)[1]
    other = other.unique(return_inverse=True)[1]
    while True:  # each takes the least number within its group of the other, until nothing changes
        before = together
        for groups in (other, before):
            least = torch.full((len(together),), len(together)).scatter_reduce(0, groups, together, "amin")
            together = least[groups]
        if torch.equal(together, before):
            return together


def same_pixels(images: Tensor) -> Tensor:
    """A number for every image (uint8 N C H W), the same for those whose pixels all are: N."""
    flat = images.flatten(1)
    spare = -flat.shape[1] % 4
    weights = torch.randint(1, 2**31, ((flat.shape[1] + spare) // 4,), generator=generator_of("pixels"))
    sums = torch.cat([
        (torch.nn.functional.pad(part, (0, spare)).contiguous().view(torch.int32).long() * weights).sum(1)
        for part in flat.split(_CHUNK)
    ])  # fmt: skip
    numbers: Tensor
    _, numbers, counts = sums.unique(return_inverse=True, return_counts=True)
    known: dict[bytes, int] = {}
    following = len(counts)
    for index in torch.nonzero(counts[numbers] > 1).flatten().tolist():  # the sums may agree by chance
        pixels = hashlib.blake2b(flat[index].numpy().tobytes(), digest_size=16).digest()
        numbers[index] = known.setdefault(pixels, following + len(known))
    return numbers


def _shares(images: Tensor, units: Tensor, fraction: float) -> list[int]:
    """How many images to take of every stratum; `units` are the groups in it, of which one at least stays."""
    most: Tensor = (images - 1) * (units > 1)
    exact = images.double() * fraction
    shares = torch.minimum(exact.floor().long(), most)
    missing = cut_count(int(images.sum()), fraction) - int(shares.sum())
    for label in torch.argsort(shares - exact, stable=True).tolist():
        if missing > 0 and shares[label] < most[label]:
            shares[label] += 1
            missing -= 1
    return [int(share) for share in shares]


def _that_fit(units: Tensor, sizes: Tensor, images: int) -> Tensor:
    """The first units that make up so many images; one that is too large for what is missing is passed over."""
    if bool((sizes[units] == 1).all()):
        return units[:images]
    taken = []
    for unit, size in zip(units.tolist(), sizes[units].tolist(), strict=True):
        if size <= images:
            taken.append(unit)
            images -= size
    return torch.tensor(taken, dtype=torch.int64)
