"""What a user says about a comparison: variants of one experiment, trained with the same seeds."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from cbam_core.spec import Markdown, Name, SpecModel
from service.domain.filters import PAGE_LIMIT
from service.domain.studies import StudyState
from service.schemas.submissions import Overrides, Submission

MOST_SEEDS = 200
VariantName = Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
SeedCount = Annotated[int, Field(ge=2, le=MOST_SEEDS)]
FEWEST_FOR_A_VERDICT = 8
"""Fewer seeds show dots or an interval, and no verdict."""
HalfWidth = Annotated[float, Field(ge=1e-6, le=0.5)]


class PrecisionRule(SpecModel):
    """Stop where the interval of every difference is narrow enough."""

    rule: Literal["precision"] = "precision"
    half_width: HalfWidth = Field(
        description="of the 95 % interval of a difference, as a share of the images: 0.005 is half a point"
    )


class SeedPlan(SpecModel):
    """As many seeds as the wanted precision needs: chosen once, by the spread of the first ones, for all variants."""

    pilot: SeedCount = Field(FEWEST_FOR_A_VERDICT, description="seeds before the number is chosen")
    most: SeedCount = Field(20, description="never more than these")
    stop: PrecisionRule

    @model_validator(mode="after")
    def _pilot_fits(self) -> Self:
        if self.most < self.pilot:
            raise ValueError(f"most ({self.most}) must not be below pilot ({self.pilot})")
        return self


def _two_at_least(variants: dict[str, Any]) -> dict[str, Any]:
    if len(variants) < 2:
        raise ValueError("a comparison needs two variants: the control, and what is compared with it")
    return variants


class ComparisonSpec(SpecModel):
    """A comparison: what is varied, what is measured, and how many seeds it has."""

    name: Name = Field(description="name of the comparison; its experiments are called after it")
    project: Name | None = Field(None, description="project of its experiments; null: the one that `base` names")
    description: Markdown = Field("", description="what it is for, in Markdown")
    base: Submission = Field(description="a whole spec, or a template with overrides: what all variants share")
    variants: Annotated[dict[VariantName, Overrides], Field(max_length=20), AfterValidator(_two_at_least)] = Field(
        description="by name, what each changes in the base",
        examples=[{"plain": {}, "cbam": {"model.attention": "cbam"}}],
    )
    control: VariantName | None = Field(None, description="what the others are compared with; null: the first variant")
    metric: Literal["test/top1", "val/top1"] = Field(
        "test/top1", description="share of the images that are classified right, after the last epoch"
    )
    margin: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="differences below it do not matter: 0.005 is half a point; null: nothing is called equal"
    )
    seeds: Annotated[
        Annotated[SeedCount, Tag("fixed")] | Annotated[SeedPlan, Tag("precision")],
        Discriminator(lambda value: "precision" if isinstance(value, SeedPlan | dict) else "fixed"),
    ] = Field(
        FEWEST_FOR_A_VERDICT, description="seeds that each variant is trained with, or the rule by which they are found"
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="what all seeds are drawn from; null: the base's `train.seed`"
    )
    pairs: Literal["control", "all"] = Field(
        "control", description="which differences are judged: from the control, or between all variants"
    )
    probe: bool = Field(
        True,
        description="whether images/s and memory of each variant are measured against the control's, once all have "
        "trained: a run of about a minute for each; false: they are not compared",
    )
    weights: Literal["final", "best"] = Field(
        "final", description="which weights are compared: those at the end, or of the best checkpoint"
    )

    @model_validator(mode="after")
    def _control_is_a_variant(self) -> Self:
        if self.control is not None and self.control not in self.variants:
            raise ValueError(f"control ({self.control}) is none of the variants: {', '.join(self.variants)}")
        return self

    @model_validator(mode="after")
    def _weights_were_measured(self) -> Self:
        if self.weights == "best" and self.metric == "val/top1":
            raise ValueError("the best checkpoint is chosen on val, so its val/top1 is no measurement; use test/top1")
        return self

    @property
    def control_name(self) -> str:
        """The control, named or not."""
        return self.control or next(iter(self.variants))

    @property
    def plan(self) -> SeedPlan | None:
        """The rule by which the number of seeds is found; None where it was said."""
        return self.seeds if isinstance(self.seeds, SeedPlan) else None

    @property
    def first_seeds(self) -> int:
        """How many seeds are wanted before anything is known."""
        return self.seeds.pilot if isinstance(self.seeds, SeedPlan) else self.seeds


class ComparisonQuery(BaseModel):
    """A narrowing and a page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: list[StudyState] = Field([], max_length=len(StudyState), description="any of these; repeat it for several")
    owner: Annotated[str, StringConstraints(max_length=128)] | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_LIMIT)] = 50
    cursor: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        None, description="`next_cursor` of the page before"
    )


class ComparisonChanges(BaseModel):
    """What of a comparison may be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    seeds: SeedCount = Field(
        description="for every variant, in all. Where results had been seen, only the anytime interval is told then"
    )
