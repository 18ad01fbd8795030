"""The probe of cost: what a worker is asked to measure, in which order, and what it says. Imports no torch, no Ray."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cbam_core.spec import ExperimentSpec

ROUNDS = 8
SECONDS = 2.0
"""How long the control, or the variant, is measured in a round."""


def probe_order(rounds: int = ROUNDS) -> str:
    """The order of the measurements, one of each per round: `cvvccvvc…`, c the control, v the variant.

    Turning every second round about cancels a linear drift of the machine.
    """
    return "".join("cv" if index % 2 == 0 else "vc" for index in range(rounds))


@dataclass(frozen=True)
class Probe:
    """Measure the assignment's own spec, the variant, against that of the control, and train nothing."""

    control: ExperimentSpec
    seconds: float = SECONDS

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"control": self.control.model_dump(mode="json"), "seconds": self.seconds}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Back from `to_dict`."""
        return cls(ExperimentSpec.model_validate(value["control"]), value["seconds"])


@dataclass(frozen=True)
class ProbeNumbers:
    """What a probe measured.

    control, variant  images/s of all ranks together, one number for each round: the median of its parts
    memory            the peak of a training step on rank 0's GPU in bytes, the images of the data set aside: of the
                      control and of the variant; None on CPUs
    """

    control: tuple[float, ...]
    variant: tuple[float, ...]
    memory: tuple[int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        memory = None if self.memory is None else list(self.memory)
        return {"control": list(self.control), "variant": list(self.variant), "memory": memory}

    @classmethod
    def from_dict(cls, value: object) -> Self | None:
        """Back from `to_dict`; None for what no probe has written: whoever reads it goes on without."""
        if not isinstance(value, Mapping):
            return None
        control, variant, memory = _speeds(value.get("control")), _speeds(value.get("variant")), value.get("memory")
        if not control or len(control) != len(variant):
            return None
        if isinstance(memory, list) and len(memory) == 2 and all(_is_size(size) for size in memory):
            return cls(control, variant, (memory[0], memory[1]))
        return cls(control, variant)


def _speeds(values: object) -> tuple[float, ...]:
    """The images/s of each round; none where these are no such numbers."""
    if not isinstance(values, list) or not 2 <= len(values) <= ROUNDS:
        return ()
    usable = all(isinstance(value, float) and math.isfinite(value) and value > 0 for value in values)
    return tuple(values) if usable else ()


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63
