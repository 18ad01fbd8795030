"""What a sweep searches over: fields in a fixed order, their values on a grid, values drawn at random. Pure."""

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.schemas.sweeps import Choices, IntRange, LogRange, Searched

Params = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One field: numbers from `low` to `high`, or `choices`; searched over only where all of `when` holds."""

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    points: int | None = None
    choices: tuple[Any, ...] | None = None
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def applies(self, params: Mapping[str, Any]) -> bool:
        """Whether it is searched over beside these values of the fields before it."""
        return all(name in params and any(alike(params[name], value) for value in values) for name, values in self.when)

    def on_grid(self) -> Sequence[Any]:
        """Its values on a grid, each once."""
        if self.choices is not None:
            return self.choices
        if self.points is None:
            return range(int(self.low), int(self.high) + 1)
        last = self.points - 1
        inner = [self._between(step / last) for step in range(1, last)]
        ends = (int(self.low), int(self.high)) if self.whole else (self.low, self.high)
        return list(dict.fromkeys([ends[0], *inner, ends[1]]))

    def ends(self) -> Sequence[Any]:
        """Its lowest and highest value, or all of its choices."""
        if self.choices is not None:
            return self.choices
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def draw(self, rng: random.Random) -> Any:
        """A value, all alike."""
        if self.choices is not None:
            return self.choices[rng.randrange(len(self.choices))]
        if not self.whole:
            return self._between(rng.random())
        if not self.log:
            return rng.randint(int(self.low), int(self.high))
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return min(int(self.high), max(int(self.low), round(math.exp(low + rng.random() * (high - low)))))

    def _between(self, share: float) -> float | int:
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            value = math.exp(low + share * (high - low))
        else:
            value = self.low + share * (self.high - self.low)
        value = min(self.high, max(self.low, value))
        return round(value) if self.whole else value


@dataclass(frozen=True)
class Space:
    """All fields, in an order in which each comes after those that its conditions name."""

    dimensions: tuple[Dimension, ...]

    def draw(self, study_seed: int, number: int) -> Params:
        """The values of a proposal, drawn at random: the same again for the same seed and number."""
        rng = random.Random(f"{study_seed}:{number}")  # drawn again alike, not secret
        params: Params = {}
        for dimension in self.dimensions:
            if dimension.applies(params):
                params[dimension.name] = dimension.draw(rng)
        return params

    def grid(self) -> Iterator[Params]:
        """Every combination of the values on the grid, each once."""
        return _combinations(self.dimensions, {}, lambda dimension: dimension.on_grid())

    def corners(self) -> Iterator[Params]:
        """Every combination of the ends of ranges and of choices, each once."""
        return _combinations(self.dimensions, {}, lambda dimension: dimension.ends())

    def each_end(self) -> Iterator[Params]:
        """Each end and each choice of each field at least once, beside the first values of the others."""
        by_name = {dimension.name: dimension for dimension in self.dimensions}
        for dimension in self.dimensions:
            wanted = _needed(dimension, by_name)
            for value in dimension.ends():
                fixed = wanted | {dimension.name: value}
                params: Params = {}
                for other in self.dimensions:
                    if other.applies(params):
                        params[other.name] = fixed.get(other.name, other.ends()[0])
                yield params


def space_of(search: Mapping[str, Searched]) -> Space:
    """The space of a search, in whatever order its fields stand. Raises ValueError where conditions go round."""
    left = {name: _dimension(name, searched) for name, searched in search.items()}
    ordered: dict[str, Dimension] = {}
    while left:
        ready = [name for name, one in left.items() if all(parent in ordered for parent, _ in one.when)]
        if not ready:
            raise ValueError(f"the conditions of {', '.join(sorted(left))} go round in a circle")
        first = min(ready)
        ordered[first] = left.pop(first)
    return Space(tuple(ordered.values()))


def canonical(params: Mapping[str, Any]) -> str:
    """As JSON with sorted keys: the same values give the same text."""
    return json.dumps(params, sort_keys=True)


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same in a spec: 1 and 1.0 are, 1 and true are not."""
    return identity(one) == identity(other)


def identity(value: Any) -> str:
    """A text that two values have in common where they are the same in a spec."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _dimension(name: str, searched: Searched) -> Dimension:
    when = tuple(sorted((searched.when or {}).items()))
    if isinstance(searched, Choices):
        return Dimension(name=name, choices=searched.choice, when=when)
    if isinstance(searched, IntRange):
        least, most = searched.int
        return Dimension(
            name=name, low=least, high=most, log=searched.log, whole=True, points=searched.points, when=when
        )
    is_log = isinstance(searched, LogRange)
    low, high = searched.log if isinstance(searched, LogRange) else searched.uniform
    return Dimension(name=name, low=low, high=high, log=is_log, points=searched.points, when=when)


def _combinations(dimensions: Sequence[Dimension], params: Params, values: Any) -> Iterator[Params]:
    if not dimensions:
        yield params
        return
    first, *others = dimensions
    if not first.applies(params):
        yield from _combinations(others, params, values)
        return
    for value in values(first):
        yield from _combinations(others, params | {first.name: value}, values)


def _needed(dimension: Dimension, by_name: Mapping[str, Dimension]) -> Params:
    """Values of the fields before it, with which it is searched over."""
    wanted: Params = {}
    for parent, values in dimension.when:
        wanted |= _needed(by_name[parent], by_name) | {parent: values[0]}
    return wanted
