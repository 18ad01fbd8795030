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
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cbam_core.spec import Markdown, Name, SpecModel
from service.domain.filters import PAGE_LIMIT
from service.domain.studies import StudyState
from service.schemas.bulk import ExperimentId
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


def _trains(info: ValidationInfo) -> bool:
    """Whether no runs are chosen, so that base and variants are needed; not where `from` is wrong by itself."""
    return info.data.get("from_", ()) is None


def _two_at_least(variants: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    if len(variants) < 2 and _trains(info):
        kind = "too_short" if variants else "missing"
        raise PydanticCustomError(kind, "a comparison needs two variants: the control, and what is compared with it")
    return variants


def _there(base: Any, info: ValidationInfo) -> Any:
    if base is None and _trains(info):
        raise PydanticCustomError("missing", "give a base and variants, or `from`: experiments that have ended")
    return base


RunIds = Annotated[list[ExperimentId], Field(min_length=2, max_length=MOST_SEEDS)]
Chosen = Annotated[
    Annotated[dict[VariantName, RunIds], Field(min_length=2, max_length=20), Tag("named")]
    | Annotated[list[ExperimentId], Field(min_length=4, max_length=20 * MOST_SEEDS), Tag("list")],
    Discriminator(lambda value: "named" if isinstance(value, dict) else "list"),
]


class ComparisonSpec(SpecModel):
    """A comparison: what is varied, what is measured, and how many seeds it has."""

    model_config = ConfigDict(serialize_by_alias=True)  # `from` is a word of Python's

    name: Name = Field(description="name of the comparison; its experiments are called after it")
    project: Name | None = Field(None, description="project of its experiments; null: the one that `base` names")
    description: Markdown = Field("", description="what it is for, in Markdown")
    from_: Chosen | None = Field(
        None,
        alias="from",
        description="instead of base and variants: experiments that have ended, by variant, each with the same seeds; "
        "or all of them in one list, and the variants are called after their attention",
    )
    base: Annotated[Submission | None, AfterValidator(_there)] = Field(
        None,
        description="a whole spec, or a template with overrides: what all variants share",
        validate_default=True,
    )
    variants: Annotated[dict[VariantName, Overrides], Field(max_length=20), AfterValidator(_two_at_least)] = Field(
        {},
        description="by name, what each changes in the base",
        validate_default=True,
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
    def _chosen_runs_are_not_trained(self) -> Self:
        probe = True if self.probe and "probe" in self.model_fields_set else None
        given = {
            "base": self.base,
            "variants": self.variants or None,
            "seed": self.seed,
            "seeds": self.plan,
            "probe": probe,
        }
        taken = [name for name, value in given.items() if value is not None]
        if self.from_ is not None and taken:
            raise ValueError(f"with `from` nothing is trained or measured: leave out {', '.join(taken)}")
        return self

    @model_validator(mode="after")
    def _control_is_a_variant(self) -> Self:
        if self.control is not None and self.names and self.control not in self.names:
            raise ValueError(f"control ({self.control}) is none of the variants: {', '.join(self.names)}")
        return self

    @model_validator(mode="after")
    def _weights_were_measured(self) -> Self:
        if self.weights == "best" and self.metric == "val/top1":
            raise ValueError("the best checkpoint is chosen on val, so its val/top1 is no measurement; use test/top1")
        return self

    @property
    def control_name(self) -> str:
        """The control, named or not."""
        return self.control or self.names[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The variants in their order; none where chosen runs are not told apart yet."""
        return tuple(self.variants or (self.from_ if isinstance(self.from_, dict) else ()))

    @property
    def plan(self) -> SeedPlan | None:
        """The rule by which the number of seeds is found; None where it was said."""
        return self.seeds if isinstance(self.seeds, SeedPlan) else None

    @property
    def first_seeds(self) -> int:
        """How many seeds are wanted before anything is known."""
        return self.seeds.pilot if isinstance(self.seeds, SeedPlan) else self.seeds


class ReplicationRequest(BaseModel):
    """What of a comparison may be other when it is asked again with fresh seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name | None = Field(None, description="null: that of the comparison, with -replication behind it")
    seeds: SeedCount | None = Field(None, description="for every variant; null: as many, or the same rule")


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
