"""What a comparison has shown: variants, differences with their verdicts, and why runs cannot be compared.

Accuracies, differences and widths are fractions of 1: 0.01 is one percentage point. Numbers that are infinite, or must
not be told yet, are null.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from service.domain.studies import StudyState
from service.schemas.base import View

VerdictWord = Literal[
    "not comparable",
    "running",
    "not shown",
    "better, by less than the margin",
    "worse, by less than the margin",
    "better",
    "worse",
    "equal within the margin",
]
ScopeWord = Literal["new images", "these images only"]
ProbeStateWord = Literal["measured", "running", "waiting", "failed", "off"]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]


class IntervalView(View):
    """All numbers from `low` to `high`."""

    low: Number = Field(description="lower end; null: unbounded")
    high: Number = Field(description="upper end; null: unbounded")


class RatioView(View):
    """A ratio with its interval, of a probe."""

    value: Number = Field(description="1: equal")
    interval: IntervalView = Field(description="95 %, Student's over the rounds of the probe")
    rounds: int = Field(description="of the probe; each measures both")


class WinsView(View):
    """In how many of the paired seeds the first variant was ahead, level, and behind."""

    wins: int = Field(description="seeds in which the first variant was ahead")
    ties: int = Field(description="seeds in which both had the same images right in number")
    losses: int = Field(description="seeds in which the first variant was behind")
    interval: IntervalView = Field(description="exact 95 % interval of the share of wins (Clopper and Pearson)")


class CorrelationView(View):
    """How much the results of two variants go together over paired seeds."""

    value: float = Field(description="Pearson's r; 0: pairing bought nothing")
    interval: IntervalView = Field(description="95 %, by Fisher's z")


class SeedsNeededView(View):
    """How many seeds show a true difference of the margin with power 0.8."""

    low: int | None = Field(description="with the observed spread; null: more than 10,000")
    high: int | None = Field(description="with its upper 80 % limit: plan with this one; null: more than 10,000")


class NewImagesView(View):
    """The difference where seeds and images are both a sample: what other images of the same kind would show."""

    interval: IntervalView = Field(description="95 %")
    nu: Number = Field(description="degrees of freedom of the interval")
    p: Number = Field(description="two-sided p of no difference")
    p_holm: Number = Field(description="the same after Holm's adjustment over all pairs")
    p_equal: Number = Field(description="p of two one-sided tests for the margin; null without one")
    p_equal_holm: Number = Field(description="the same after Holm's adjustment over all pairs")
    image_variance: Number = Field(description="variance that remains with infinitely many seeds")


class PairResultView(View):
    """The difference first − second of two variants, and what it shows."""

    first: str = Field(description="the variant that is compared")
    second: str = Field(description="the control, or with `pairs: all` the earlier variant")
    n: int = Field(description="paired seeds")
    verdict: VerdictWord = Field(description="the first rule that holds")
    scope: ScopeWord | None = Field(description="images that the verdict is about; null where nothing is shown")
    sentence: str = Field(description="the verdict in words, with its numbers and its cost")
    differences: list[float] = Field(description="one for each seed, in the order of the seeds; empty while hidden")
    difference: Number = Field(description="their mean")
    s: Number = Field(description="their standard deviation, no less than half an image")
    interval: IntervalView | None = Field(description="95 % of the mean difference, for this pair alone")
    simultaneous: IntervalView | None = Field(description="the same for all pairs together (Bonferroni)")
    anytime: IntervalView | None = Field(description="holds at every look: while seeds run, or after some were added")
    p: Number = Field(description="two-sided, of the paired t-test")
    p_holm: Number = Field(description="the same after Holm's adjustment over all pairs: what the verdict uses")
    p_sign_flip: Number = Field(description="exact, of the sign-flip test; no less than 2^(1−n)")
    p_equal: Number = Field(description="of two one-sided tests for the margin; null without a margin")
    p_equal_holm: Number = Field(description="the same after Holm's adjustment over all pairs")
    wins: WinsView | None = Field(description="wins, ties and losses over the seeds")
    correlation: CorrelationView | None = Field(description="of the paired results")
    new_images: NewImagesView | None = Field(description="null without predictions of single images")
    mcnemar: list[float] | None = Field(description="exact p of each seed alone, never pooled")
    seeds_needed: SeedsNeededView | None = Field(description="for a difference of the margin; null without one")
    more_images: bool = Field(description="whether no number of seeds resolves the margin on this many images")
    parameters_ratio: Number = Field(description="parameters of the first over those of the second")
    macs_ratio: Number = Field(description="multiply-adds of the first over those of the second")
    memory_ratio: Number = Field(description="peak memory of the first over that of the second; none for CPUs")
    throughput: RatioView | None = Field(
        None, description="images/s of the first over those of the second, by a probe; null: see `probes`"
    )
    warnings: list[str] = Field(description="what to know before believing it")


class RunView(View):
    """One run: a variant trained with one seed."""

    block: int = Field(description="number of the block of seeds, from 0; its runs share the seed")
    seed: Seed = Field(description="that everything was drawn from")
    experiment_id: str = Field(description="of the run, whether or not it is still there")
    state: str | None = Field(description="of the experiment; null where it was deleted")
    counted: bool = Field(description="whether its block is finished, so that it is in the numbers")
    diverged: bool = Field(description="whether its loss was no longer finite; it counts with the accuracy of chance")
    correct: int | None = Field(description="images that were classified right; null while unknown or hidden")


class VariantResultView(View):
    """One variant by itself, over its finished blocks of seeds."""

    name: str = Field(description="of the variant")
    is_control: bool = Field(description="whether the others are compared with it")
    n: int = Field(description="seeds that are in the numbers")
    accuracies: list[float] = Field(description="one for each seed that is counted, in order; empty while hidden")
    mean: Number = Field(description="of the accuracies")
    sd: Number = Field(description="standard deviation over seeds; null with one seed")
    diverged: int = Field(description="how many of the counted runs diverged")
    collapse_bound: Number = Field(description="upper 95 % limit of the share of runs that diverge")
    parameters: int | None = Field(description="trainable numbers of the network; null while no run has ended")
    macs: int | None = Field(description="multiply-adds of one image")
    peak_memory_bytes: int | None = Field(description="the most that a run of it used, on its device")
    memory_ratio: Number = Field(description="peak memory over that of the control")
    images_per_second: Number = Field(description="median over runs, as seen in training: shown, not compared")
    runs: list[RunView] = Field(description="all its runs so far, by block")


class ProbeView(View):
    """What a variant costs against the control: steps of both trainings in turns, alone on the same devices."""

    variant: str = Field(description="that is measured against the control")
    state: ProbeStateWord = Field(description="off: none was asked for; failed: it has ended without numbers")
    why: str = Field(description="why there are no numbers, in words; empty where there are")
    experiment_id: str | None = Field(description="of the probe, whether or not it is still there")
    throughput: RatioView | None = Field(description="images/s over those of the control")
    memory_ratio: Number = Field(description="peak memory of a training step over that of the control; none for CPUs")
    images_per_second: Number = Field(description="of the variant, median over rounds, without reading images")
    control_images_per_second: Number = Field(description="the same of the control")
    peak_memory_bytes: int | None = Field(description="of the variant's training step on rank 0's GPU")
    control_peak_memory_bytes: int | None = Field(description="the same of the control")
    device: str | None = Field(description="that it was measured on")


class UnequalValueView(View):
    """One of the values that a field has, and the runs that have it."""

    value: str = Field(description="in words, shortened")
    runs: int = Field(description="how many runs have it")
    of: list[str] = Field(description="some of these runs: variant and number of the seed")


class UnequalField(View):
    """A field that should be the same in all runs and is not."""

    field: str = Field(description="of the spec, or of what the run reports: device, torch, code, images, …")
    words: str = Field(description="what differs, in one sentence")
    values: list[UnequalValueView] = Field(description="the commonest first, no more than 5")


class SeedsView(View):
    """How many seeds there are and will be."""

    finished: int = Field(description="blocks of which every variant has a number")
    planned: int = Field(description="in the end; under `precision` the pilot, until the number is chosen")
    most: int = Field(description="never more than these")
    rule: Literal["fixed", "precision", "added", "stopped"] = Field(
        description="fixed: said beforehand; precision: by the spread of the first ones; added: after results; "
        "stopped: it ended before the last one"
    )
    half_width: Number = Field(description="of the interval that `precision` aims at")
    pilot: int | None = Field(description="seeds before the number is chosen, under `precision`")
    values: list[Seed] = Field(description="the seeds of the finished blocks")


class ConditionView(View):
    """Something that was held equal, as it was."""

    name: str = Field(description="data, epochs, device, …")
    value: str = Field(description="in words; several where runs differ")


class ReplicationView(View):
    """Another comparison that asked the same with other seeds, and what it has shown by itself."""

    id: str = Field(description="of the other comparison")
    name: str = Field(description="of the other comparison; empty where it was deleted")
    relation: Literal["of", "by"] = Field(description="of: this one repeats it; by: it repeats this one")
    state: StudyState | None = Field(description="of the other comparison; null where it was deleted")
    seeds: int = Field(description="that it has finished")
    summary: list[str] = Field(description="its verdicts in words, one for each pair")


class ResultView(View):
    """What a comparison has shown so far."""

    study_id: str = Field(description="of the comparison")
    name: str = Field(description="of the comparison")
    project: str = Field(description="of the comparison")
    description: str = Field(description="what it is for, in Markdown")
    state: StudyState = Field(description="of the comparison")
    metric: str = Field(description="test/top1 or val/top1")
    weights: Literal["final", "best"] = Field(description="whose accuracy is compared")
    control: str = Field(description="the variant that others are compared with")
    pairs_judged: Literal["control", "all"] = Field(description="differences from the control, or of all variants")
    tests: int = Field(description="differences that are adjusted for together")
    margin: Number = Field(description="differences below it do not matter; null: none was given, or it is too small")
    images: int | None = Field(description="that each run was measured on; null while unknown")
    resolution: Number = Field(description="one image: the smallest difference that one run can show")
    seeds: SeedsView = Field(description="how many there are and will be")
    running: bool = Field(description="whether blocks of seeds are still to finish")
    hidden: bool = Field(description="whether means and dots are hidden until the last seed (`precision`)")
    cut: bool = Field(description="whether `most` allowed fewer seeds than the half width needs")
    not_comparable: list[UnequalField] = Field(description="what differs between runs and was not varied")
    warnings: list[str] = Field(description="what to know before believing it")
    summary: list[str] = Field(description="the verdicts in words, one for each pair")
    variants: list[VariantResultView] = Field(description="the control and the others, in the order of the spec")
    pairs: list[PairResultView] = Field(description="the differences")
    probes: list[ProbeView] = Field([], description="what each variant but the control costs, or why that is not known")
    conditions: list[ConditionView] = Field(description="what was held equal")
    replications: list[ReplicationView] = Field([], description="the same question with other seeds: judged apart")
