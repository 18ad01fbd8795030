"""The crossed variance against a direct sum over the two-way table, and what it says of images drawn anew."""

import numpy as np
import pytest

from service.comparisons.statistics import crossed, image_sums, paired_difference, tost


def slow_crossed(first, second, groups=None):
    """V and ν of docs/design/statistics.md by loops over seeds, images and groups."""
    d = first.astype(float) - second.astype(float)
    seeds, n = d.shape
    groups = np.arange(n) if groups is None else groups
    labels = sorted(set(groups.tolist()))
    m, mean, by_seed, by_image = len(labels), d.mean(), d.mean(axis=1), d.mean(axis=0)
    s = max(float(np.std(by_seed, ddof=1)), 0.5 / n)
    z = dict.fromkeys(labels, 0.0)
    zs = {(s, g): 0.0 for s in range(seeds) for g in labels}
    for i in range(n):
        g = int(groups[i])
        z[g] += (by_image[i] - mean) / n
        for k in range(seeds):
            zs[k, g] += (d[k, i] - by_seed[k] - by_image[i] + mean) / n
    va = s**2 / seeds
    vb = m / (m - 1) * sum(x**2 for x in z.values())
    vr = m / ((m - 1) * seeds * (seeds - 1)) * sum(x**2 for x in zs.values())
    v = va + max(vb - vr, 0)
    below = va**2 / (seeds - 1) + (vb > vr) * (vb**2 / (m - 1) + vr**2 / ((seeds - 1) * (m - 1)))
    return mean, v, max(seeds - 1, v**2 / below), max(vb - vr, 0), vb


def fast_crossed(first, second, groups=None):
    one, other = image_sums(first, groups), image_sums(second, groups)
    d = paired_difference(one.by_seed, other.by_seed, first.shape[1])
    return crossed(one, other, s=d.s, nu=d.nu)


def drawn(seed, *, seeds, images, spread):
    """Correctness whose chance differs between images, for two variants apart."""
    random = np.random.default_rng(seed)
    chance = 1 / (1 + np.exp(-random.normal(1, spread, (2, 1, images)) - random.normal(0, 0.2, (2, seeds, 1))))
    return random.random((2, seeds, images)) < chance


@pytest.mark.parametrize("kind", ["each its own", "groups", "labels with gaps"])
@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_it_is_the_sum_over_the_table(kind, spread, seeds):
    for seed in range(4):
        first, second = drawn(seed, seeds=seeds, images=83, spread=spread)
        random = np.random.default_rng(seed)
        groups = {
            "each its own": None,
            "groups": random.integers(0, 9, 83),
            "labels with gaps": random.choice([-5, 7, 100], 83),
        }[kind]
        found = fast_crossed(first, second, groups)
        numbers = (found.mean, found.variance, found.nu, found.image_variance, found.group_variance)
        assert numbers == pytest.approx(slow_crossed(first, second, groups), rel=1e-9, abs=1e-18)


def test_groups_of_one_image_are_no_groups():
    first, second = drawn(1, seeds=5, images=50, spread=2)
    alone, grouped = fast_crossed(first, second), fast_crossed(first, second, np.random.default_rng(0).permutation(50))
    assert grouped.variance == pytest.approx(alone.variance, rel=1e-12)
    assert grouped.nu == pytest.approx(alone.nu, rel=1e-12)


def test_images_in_one_group_say_nothing_of_others():
    first, second = drawn(2, seeds=5, images=50, spread=2)
    assert fast_crossed(first, second, np.zeros(50, dtype=np.int64)) is None


def test_copies_of_each_image_in_a_group_add_nothing():
    """Fifty frames of a video are not fifty videos."""
    first, second = drawn(3, seeds=6, images=60, spread=2)
    groups = np.repeat(np.arange(60), 50)
    once = fast_crossed(first, second)
    copies = fast_crossed(first.repeat(50, axis=1), second.repeat(50, axis=1), groups)
    alone = fast_crossed(first.repeat(50, axis=1), second.repeat(50, axis=1))
    assert copies.group_variance == pytest.approx(once.group_variance, rel=1e-9)
    assert alone.group_variance < once.group_variance / 20


def test_the_same_networks_under_every_seed_are_one_network():
    """Without any spread over seeds the images alone decide: nine images better, four worse is not significant."""
    first, second = np.zeros((8, 200), dtype=bool), np.zeros((8, 200), dtype=bool)
    first[:, :100] = second[:, :100] = True
    first[:, 100:109] = True
    second[:, 109:113] = True
    assert 0.1 < fast_crossed(first, second).test() < 0.25


def test_more_images_and_not_more_seeds():
    first, second = drawn(4, seeds=8, images=100, spread=3)
    found = fast_crossed(first, second)
    limit = 1.96 * found.image_variance**0.5
    assert found.needs_more_images(0.99 * limit)
    assert not found.needs_more_images(1.01 * limit)


def test_equal_on_new_images():
    first, second = drawn(5, seeds=8, images=5000, spread=0.0)
    found = fast_crossed(first, second)
    assert found.test_equal(0.1) == tost(found.mean, found.variance**0.5, found.nu, 0.1) < 0.01
    assert found.test_equal(0.0005) > 0.05
