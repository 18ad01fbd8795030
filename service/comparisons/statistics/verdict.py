"""The rules that make a verdict of a pair's numbers, in their order."""

from dataclasses import dataclass

from service.comparisons.statistics.judgement import Scope, Verdict

ALPHA = 0.05
"""All tests and intervals are at this level, over all pairs together where that is said."""
SEEDS_FOR_INTERVAL = 5
SEEDS_FOR_VERDICT = 8


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the rules look at. `differs` and `equal` are after the adjustment for several tests."""

    comparable: bool = True
    running: bool = False
    n: int = SEEDS_FOR_VERDICT
    difference: float = 0.0
    differs: bool = False
    """Holm p < 0.05."""
    equal: bool = False
    """TOST, Holm p < 0.05."""
    differs_on_new: bool = False
    """The same of the crossed p."""
    equal_on_new: bool = False


def choose_verdict(evidence: Evidence) -> tuple[Verdict, Scope | None]:
    """Return the first verdict that holds, and the images that it is about.

    (1) not comparable; (2) running; (3) not shown, n < 8; (4) better or worse, by less than the margin: differs and is
    equal; (5) better, worse; (6) equal; (7) not shown. The scope of 4 to 6 is new images where the crossed tests agree
    with all that the verdict says, else these images only.
    """
    if not evidence.comparable:
        return Verdict.NOT_COMPARABLE, None
    if evidence.running:
        return Verdict.RUNNING, None
    if evidence.n < SEEDS_FOR_VERDICT or not (evidence.differs or evidence.equal):
        return Verdict.NOT_SHOWN, None
    ahead = evidence.difference > 0
    if evidence.differs and evidence.equal:
        verdict = Verdict.BETTER_WITHIN_MARGIN if ahead else Verdict.WORSE_WITHIN_MARGIN
    elif evidence.differs:
        verdict = Verdict.BETTER if ahead else Verdict.WORSE
    else:
        verdict = Verdict.EQUAL
    agrees = (evidence.differs_on_new or not evidence.differs) and (evidence.equal_on_new or not evidence.equal)
    return verdict, Scope.NEW_IMAGES if agrees else Scope.THESE_IMAGES
