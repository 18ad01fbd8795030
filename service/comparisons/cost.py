"""What a variant costs: as its trainings say, and as a probe has measured it against the control."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from service.comparisons.runs import Run, Runs
from service.comparisons.statistics import Ratio, UnusableProbe, throughput_ratio
from service.comparisons.stored import has_probe, is_before_probes
from service.comparisons.words import CostFacts
from service.database.models.studies import Study
from service.domain.states import HOLDS_GANG, State
from service.domain.studies import STUDY_TERMINAL
from service.schemas.comparison_results import IntervalView, ProbeStateWord, ProbeView, RatioView
from workers.protocol.probe import ProbeNumbers

ON_CPUS = "cpu"
"""How the name of a device begins whose peak memory is that of the whole process, which says little of a network."""


class TrainingCost:
    """What training and using a variant costs, as its runs say."""

    def __init__(self, runs: Sequence[Run]) -> None:
        facts = [run.facts for run in runs]
        on_gpus = [fact for fact in facts if not str(fact.get("device", ON_CPUS)).startswith(ON_CPUS)]
        self.parameters: int | None = _largest(facts, "parameters")
        self.macs: int | None = _largest(facts, "macs")
        self.memory: int | None = _largest(facts, "peak_memory_bytes")
        self.gpu_memory: int | None = _largest(on_gpus, "peak_memory_bytes")
        speeds = [fact["images_per_second"] for fact in facts if fact.get("images_per_second")]
        self.images_per_second: float | None = median(speeds) if speeds else None


@dataclass(frozen=True)
class Probed:
    """What the probe of a variant has said, or why it has said nothing."""

    variant: str
    state: ProbeStateWord
    why: str = ""
    """In words, where nothing was measured."""
    experiment_id: str | None = None
    numbers: ProbeNumbers | None = None
    ratio: Ratio | None = None
    device: str | None = None

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory over that of the control."""
        memory = self.numbers.memory if self.numbers else None
        return None if memory is None else memory[1] / memory[0]

    def view(self) -> ProbeView:
        """As the API tells it."""
        numbers, memory = self.numbers, self.numbers.memory if self.numbers else None
        return ProbeView(
            variant=self.variant,
            state=self.state,
            why=self.why,
            experiment_id=self.experiment_id,
            throughput=None if self.ratio is None else ratio_view(self.ratio),
            memory_ratio=self.memory_ratio,
            images_per_second=median(numbers.variant) if numbers else None,
            control_images_per_second=median(numbers.control) if numbers else None,
            peak_memory_bytes=memory[1] if memory else None,
            control_peak_memory_bytes=memory[0] if memory else None,
            device=self.device,
        )


def ratio_view(ratio: Ratio) -> RatioView:
    """As the API tells it."""
    interval = IntervalView(low=ratio.interval.low, high=ratio.interval.high)
    return RatioView(value=ratio.value, interval=interval, rounds=ratio.rounds)


def probed(study: Study, runs: Runs) -> dict[str, Probed]:
    """What is known of the probe of each variant but the control."""
    by_variant = {run.trial.variant: run for run in runs.probes}
    others = [name for name in runs.plan.variants if name != runs.plan.control]
    return {name: _probed(study, name, by_variant.get(name)) for name in others}


def _probed(study: Study, name: str, run: Run | None) -> Probed:
    if run is None:
        return Probed(name, *_not_begun(study))
    experiment_id, state = run.trial.experiment_id, run.seen.state
    if run.seen.observed and run.trial.observed is not None:
        numbers = ProbeNumbers.from_dict(run.trial.observed.get("probe"))
        device = run.trial.observed.get("device")
        if numbers is not None and (ratio := _ratio_of(numbers)) is not None:
            return Probed(name, "measured", "", experiment_id, numbers, ratio, device)
    if run.seen.is_open:
        going_on = state in HOLDS_GANG or state is State.SUCCEEDED
        return Probed(name, "running" if going_on else "waiting", "its probe has not ended", experiment_id)
    return Probed(name, "failed", _why(run), experiment_id)


def _ratio_of(numbers: ProbeNumbers) -> Ratio | None:
    try:
        return throughput_ratio(numbers.control, numbers.variant)
    except UnusableProbe:
        return None


def _not_begun(study: Study) -> tuple[ProbeStateWord, str]:
    if is_before_probes(study.spec):
        return "off", "the comparison is from before there were probes"
    if not has_probe(study.spec):
        return "off", "the comparison asked for no probe"
    if study.state in STUDY_TERMINAL:
        return "failed", "the comparison ended before its probe"
    return "waiting", "its probe comes behind the last training"


def _why(run: Run) -> str:
    if run.seen.state is None:
        return "its probe was deleted"
    if run.seen.state is State.SUCCEEDED:
        return "its probe left no numbers"
    if run.seen.state is State.CANCELLED:
        return "its probe was cancelled"
    return f"its probe failed ({run.seen.reason})" if run.seen.reason else "its probe failed"


def facts_of(first: TrainingCost, second: TrainingCost, probe: Probed | None, *, control: str) -> CostFacts:
    """The costs of a variant over those of another one. `probe` is that of the first where the second is the control.

    Memory is the probe's, where it has measured it: of networks that stood beside each other.
    """
    measured = None if probe is None else probe.memory_ratio
    return CostFacts(
        throughput=None if probe is None else probe.ratio,
        not_measured=f"probes are against {control} alone" if probe is None else probe.why,
        parameters=_over(first.parameters, second.parameters),
        macs=_over(first.macs, second.macs),
        memory=_over(first.gpu_memory, second.gpu_memory) if measured is None else measured,
    )


def cost_warnings(probes: Mapping[str, Probed], runs: Runs) -> Iterator[str]:
    """What to know of the probes, beside their numbers."""
    trained_on = {str(run.facts["device"]) for run in runs.all if run.facts.get("device") is not None}
    for probe in probes.values():
        if probe.state == "failed":
            yield f"the cost of {probe.variant} was not measured: {probe.why}"
        elif probe.device is not None and trained_on and probe.device not in trained_on:
            yield f"the cost of {probe.variant} was measured on {probe.device}, where nothing was trained"


def _largest(facts: Sequence[dict[str, Any]], name: str) -> int | None:
    return max((fact[name] for fact in facts if fact.get(name) is not None), default=None)


def _over(first: int | None, second: int | None) -> float | None:
    return first / second if first is not None and second else None
