"""What a sweep searches over: the order of its fields, its grid, its draws."""

import itertools
import math
import random

import pytest

from service.schemas.sweeps import SweepSpec
from service.sweeps.space import Space, alike, space_of
from tests.support.studies.sweeping import GRID, SEARCH, sweep_dict


def space(search: dict) -> Space:
    return space_of(SweepSpec.model_validate(sweep_dict(search=search)).search)


def test_draws_are_fixed():
    """Stored sweeps go on after an upgrade: proposal k stays what it was."""
    assert [space(SEARCH).draw(0, number) for number in (0, 1, 5)] == [
        {"model.attention.type": "cbam", "model.attention.reduction": 5, "train.optimizer.lr": 0.5772585241081828},
        {"model.attention.type": "none", "train.optimizer.lr": 0.9526294632854357},
        {"model.attention.type": "se", "model.attention.reduction": 3, "train.optimizer.lr": 0.015016344663318483},
    ]
    assert space(SEARCH).draw(1, 0) != space(SEARCH).draw(0, 0)


def test_the_order_of_the_fields_changes_nothing():
    names = list(SEARCH)
    for order in itertools.permutations(names):
        assert space({name: SEARCH[name] for name in order}) == space(SEARCH)


def test_draws_stay_within_their_ranges_and_cover_them():
    searched = space(
        {
            "train.optimizer.lr": {"log": [0.001, 10]},
            "train.optimizer.momentum": {"float": [-1, 3]},
            "train.epochs": {"int": [1, 4]},
            "train.global_batch_size": {"int": [1, 64], "log": True},
        }
    )
    drawn = [searched.draw(0, number) for number in range(4000)]
    rates = [one["train.optimizer.lr"] for one in drawn]
    assert min(rates) >= 0.001
    assert max(rates) <= 10
    assert sum(math.log10(rate) < -1 for rate in rates) / 4000 == pytest.approx(0.5, abs=0.03)
    momenta = [one["train.optimizer.momentum"] for one in drawn]
    assert -1 <= min(momenta) < -0.98
    assert 2.98 < max(momenta) <= 3
    assert {one["train.epochs"] for one in drawn} == {1, 2, 3, 4}
    sizes = [one["train.global_batch_size"] for one in drawn]
    assert (min(sizes), max(sizes)) == (1, 64)
    assert sum(size <= 8 for size in sizes) / 4000 == pytest.approx(math.log(17) / math.log(129), abs=0.03)


def test_a_grid_has_every_combination_once():
    points = list(space(GRID).grid())
    rates = [0.01, 10 ** (-4 / 3), 10 ** (-2 / 3), 1.0]
    wanted = list(itertools.product(["none", "se", "cbam"], rates, [0.0, 0.9]))
    assert [(p["model.attention.type"], p["train.optimizer.momentum"]) for p in points] == [
        (kind, momentum) for kind, _, momentum in wanted
    ]
    assert [p["train.optimizer.lr"] for p in points] == pytest.approx([rate for _, rate, _ in wanted])


def test_a_condition_takes_its_points_out_of_the_grid():
    search = SEARCH | {"train.optimizer.lr": {"choice": [0.1]}, "model.attention.reduction": {"int": [2, 3]} | {
        "when": {"model.attention.type": ["se", "cbam"]}}}  # fmt: skip
    points = [(p["model.attention.type"], p.get("model.attention.reduction")) for p in space(search).grid()]
    assert points == [("none", None), ("se", 2), ("se", 3), ("cbam", 2), ("cbam", 3)]


def test_conditions_may_stand_on_conditions_but_not_go_round():
    chain = {
        "model.attention.type": {"choice": ["none", "cbam"]},
        "model.attention.gate": {"choice": ["sigmoid", "other"], "when": {"model.attention.type": ["cbam"]}},
        "model.attention.kernel_size": {"choice": [3, 7], "when": {"model.attention.gate": ["other"]}},
    }
    assert len(list(space(chain).grid())) == 4
    assert {p.get("model.attention.kernel_size") for p in space(chain).each_end()} == {None, 3, 7}
    round_ = {name: {"choice": [1], "when": {other: [1]}} for name, other in (("a", "b"), ("b", "a"))}
    with pytest.raises(ValueError, match="the conditions of a, b go round"):
        space(round_)


def test_ends_and_choices_are_all_tried_at_the_corners():
    corners = list(space(SEARCH).corners())
    assert len(corners) == 2 + 4 + 4
    assert {p.get("model.attention.reduction") for p in corners} == {None, 2, 8}


def test_what_is_alike_in_a_spec():
    assert alike(1, 1.0)
    assert alike({"a": [1]}, {"a": [1.0]})
    assert not alike(1, True)
    assert not alike("1", 1)


def test_points_of_whole_numbers_are_whole_and_rise():
    searched = space({"train.epochs": {"int": [1, 100], "log": True, "points": 5}})
    values = [one["train.epochs"] for one in searched.grid()]
    assert values == [1, 3, 10, 32, 100]
    rng = random.Random(0)
    assert all(isinstance(searched.dimensions[0].draw(rng), int) for _ in range(50))
