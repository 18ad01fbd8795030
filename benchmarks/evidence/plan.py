"""The runs that the evidence is made of: what the comparison asks for, worked out without a server."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbam_core.spec import ExperimentSpec
from service.client.comparing.specs import read_comparison
from service.comparisons.actions import study_seed
from service.comparisons.submission import base_spec, trial_spec, variant_specs
from service.domain.studies import seed_of
from service.schemas.comparisons import ComparisonSpec

SPEC = Path(__file__).parents[2] / "examples" / "comparisons" / "cluttered-mnist.yaml"
QUICK = {"train.epochs": 1, "train.schedule.warmup_epochs": 0, "data.image_size": 16}
QUICK_SEEDS = 2


@dataclass(frozen=True)
class PlannedRun:
    """One run: a variant with the seed of a block; `spec` is what the comparison submits for it."""

    variant: str
    block: int
    seed: int
    spec: ExperimentSpec

    @property
    def file(self) -> str:
        """The name of the file that keeps what it reached; seeds are counted from 1."""
        return f"{self.variant}-{self.block + 1}.json"

    @property
    def is_shown(self) -> bool:
        """Whether a picture is drawn of its attention: CBAM with the first seed."""
        return self.block == 0 and self.spec.model.attention.type == "cbam"


@dataclass(frozen=True)
class Plan:
    """A comparison, the specs of its variants, what its seeds are drawn from, and its runs, block by block."""

    comparison: ComparisonSpec
    specs: Mapping[str, ExperimentSpec]
    seed: int
    runs: tuple[PlannedRun, ...]


def read_plan(path: Path = SPEC, *, quick: bool = False) -> Plan:
    """The plan of a comparison's file; quick: one epoch of small images, two seeds. Raises SpecError, InvalidFields."""
    comparison = read_comparison(path)
    if quick:
        fields: dict[str, Any] = comparison.model_dump(mode="json")
        fields["base"]["overrides"] |= QUICK
        comparison = ComparisonSpec.model_validate(fields | {"seeds": QUICK_SEEDS}, strict=False)
    comparison = comparison.model_copy(update={"probe": False})  # a record is of a training
    specs = variant_specs(comparison, base_spec(comparison))
    seed = study_seed(comparison, specs)
    runs = [
        PlannedRun(name, block, at, trial_spec(spec, study=comparison.name, variant=name, block=block, seed=at))
        for block in range(comparison.first_seeds)
        for at in [seed_of(seed, block)]
        for name, spec in specs.items()
    ]
    return Plan(comparison, specs, seed, tuple(runs))
