"""The sentence of every verdict, word for word."""

from dataclasses import replace

import pytest

from service.comparisons.statistics import (
    Interval,
    Judgement,
    NewImages,
    PairJudgement,
    Ratio,
    Scope,
    SeedsNeeded,
    Verdict,
)
from service.comparisons.words import CostFacts, sentence

COMPARISON = Judgement(
    control="plain",
    variants=(),
    pairs=(),
    images=355,
    resolution=1 / 355,
    margin=0.01,
    tests=3,
    n=10,
    planned=10,
    running=False,
    hidden=False,
    cut=False,
    unequal=(),
)
NEW = NewImages(
    interval=Interval(-0.007, 0.023), nu=30.0, p=0.3, p_holm=0.6, p_equal=0.4, p_equal_holm=0.8, image_variance=5e-5
)
BETTER = PairJudgement(
    first="cbam",
    second="plain",
    n=10,
    verdict=Verdict.BETTER,
    scope=Scope.THESE_IMAGES,
    difference=0.008,
    interval=Interval(0.003, 0.013),
    p=0.004,
    p_holm=0.0101,
    p_equal=0.2,
    p_equal_holm=0.5,
    new_images=NEW,
)
WORSE = replace(BETTER, first="se", verdict=Verdict.WORSE, difference=-0.008, interval=Interval(-0.013, -0.003))
SMALL = replace(BETTER, difference=0.003, interval=Interval(0.001, 0.005), p_equal_holm=0.0004)
OPEN = replace(
    BETTER, verdict=Verdict.NOT_SHOWN, scope=None, difference=0.003, interval=Interval(-0.004, 0.01), p_holm=0.31
)
COST = CostFacts(throughput=Ratio(0.93, Interval(0.91, 0.95), 8), parameters=1.011)
TOLD = "Images/s × 0.93 [0.91, 0.95], parameters +1.1 %, so not at equal cost; one training set, untuned."
UNKNOWN = "Costs were not measured; one training set, untuned."

CASES = {
    "better": (
        COMPARISON,
        BETTER,
        COST,
        "On these 355 images cbam beats plain by 0.8 points [0.3, 1.3] (10 paired seeds, Holm p 0.01 of 3). "
        f"New images [−0.7, 2.3]: not shown. {TOLD}",
    ),
    "worse, on new images too": (
        replace(COMPARISON, tests=1),
        replace(WORSE, scope=Scope.NEW_IMAGES, new_images=replace(NEW, interval=Interval(-0.0149, -0.001))),
        CostFacts(throughput=Ratio(1.0, Interval(0.99, 1.01), 8), parameters=1.0, macs=0.996, memory=1.0),
        "On these 355 images se is worse than plain: −0.8 points [−1.3, −0.3] (10 paired seeds, p 0.01). "
        "New images [−1.5, −0.1]: shown too. Images/s × 1.00 [0.99, 1.01], parameters equal, MACs −0.4 %, "
        "memory × 1.00, so at equal cost; one training set, untuned.",
    ),
    "better, by less than the margin": (
        COMPARISON,
        replace(SMALL, verdict=Verdict.BETTER_WITHIN_MARGIN),
        None,
        "On these 355 images cbam beats plain, by less than 1 point: 0.3 points [0.1, 0.5] (10 paired seeds, Holm p "
        f"0.01 of 3, Holm p < 0.001 of 3 for less than the margin). New images [−0.7, 2.3]: not shown. {UNKNOWN}",
    ),
    "worse, by less than the margin": (
        replace(COMPARISON, margin=0.005, images=10_000, resolution=1e-4),
        replace(
            SMALL,
            verdict=Verdict.WORSE_WITHIN_MARGIN,
            difference=-0.0012,
            interval=Interval(-0.00201, -0.0004),
            p_holm=0.04996,
            new_images=None,
        ),
        None,
        "On these 10,000 images cbam is worse than plain, by less than 0.5 points: −0.12 points [−0.20, −0.04] "
        "(10 paired seeds, Holm p 0.04996 of 3, Holm p < 0.001 of 3 for less than the margin). "
        f"New images: unknown without predictions of single images. {UNKNOWN}",
    ),
    "equal": (
        COMPARISON,
        replace(SMALL, verdict=Verdict.EQUAL, scope=Scope.NEW_IMAGES, difference=-0.0001, p_holm=0.7),
        CostFacts(throughput=Ratio(0.99, Interval(0.97, 1.01), 8)),
        "On these 355 images cbam equals plain within ±1 point: 0.0 points [0.1, 0.5] (10 paired seeds, Holm p "
        "< 0.001 of 3 for less than the margin). New images [−0.7, 2.3]: shown too. Images/s × 0.99 [0.97, 1.01], "
        "equal cost not shown; one training set, untuned.",
    ),
    "not shown": (
        COMPARISON,
        replace(OPEN, seeds_needed=SeedsNeeded(18, 31)),
        COST,
        "On these 355 images it is not shown that cbam and plain differ: 0.3 points [−0.4, 1.0] (10 paired seeds, Holm "
        f"p 0.31 of 3). New images [−0.7, 2.3]: not shown. To show 1 point takes 18 to 31 seeds. {TOLD}",
    ),
    "more images": (
        replace(COMPARISON, margin=0.005),
        replace(OPEN, seeds_needed=SeedsNeeded(18, 31), more_images=True),
        COST,
        "On these 355 images it is not shown that cbam and plain differ: 0.3 points [−0.4, 1.0] (10 paired seeds, Holm "
        "p 0.31 of 3). New images [−0.7, 2.3]: not shown. To show 0.5 points on new images takes more images, not more "
        f"seeds. {TOLD}",
    ),
    "six seeds": (
        replace(COMPARISON, n=6),
        replace(OPEN, n=6, p_holm=None),
        None,
        f"cbam less plain is 0.3 points [−0.4, 1.0] over 6 paired seeds: a verdict takes 8. {UNKNOWN}",
    ),
    "three seeds": (
        replace(COMPARISON, n=3),
        replace(OPEN, n=3, interval=None, p_holm=None),
        None,
        f"cbam less plain is 0.3 points over 3 paired seeds: an interval takes 5, a verdict 8. {UNKNOWN}",
    ),
    "running": (
        replace(COMPARISON, n=6, running=True),
        replace(OPEN, n=6, verdict=Verdict.RUNNING, interval=None, anytime=Interval(-0.021, 0.027)),
        COST,
        "6 of 10 paired seeds are done; cbam less plain is 0.3 points so far [−2.1, 2.7], provisional.",
    ),
    "running, hidden": (
        replace(COMPARISON, n=6, planned=8, running=True, hidden=True),
        PairJudgement(first="cbam", second="plain", n=6, verdict=Verdict.RUNNING),
        COST,
        "6 of 8 paired seeds are done; means are hidden until the last one.",
    ),
    "not comparable": (
        replace(COMPARISON, unequal=("data.val.seed", "train.batch_size")),
        replace(BETTER, verdict=Verdict.NOT_COMPARABLE),
        COST,
        "cbam and plain are not comparable: data.val.seed, train.batch_size differ.",
    ),
    "seeds were added": (
        COMPARISON,
        replace(BETTER, interval=None, anytime=Interval(0.001, 0.015), p_holm=None),
        None,
        "On these 355 images cbam beats plain by 0.8 points [0.1, 1.5] (10 paired seeds, a number not fixed "
        f"beforehand: an interval that holds at any, error 1.7 %). New images [−0.7, 2.3]: not shown. {UNKNOWN}",
    ),
}


@pytest.mark.parametrize(("comparison", "pair", "cost", "words"), CASES.values(), ids=CASES)
def test_the_words_of_a_verdict(comparison, pair, cost, words):
    assert sentence(comparison, pair, cost) == words


def test_every_verdict_has_its_words():
    assert {pair.verdict for _, pair, _, _ in CASES.values()} == set(Verdict)


def test_what_was_not_found_is_never_called_none():
    assert not any("no difference" in words for _, _, _, words in CASES.values())


def test_the_conditions_end_the_sentence():
    tuned = sentence(COMPARISON, BETTER, COST, conditions=("one training set", "for the settings one search found"))
    assert tuned.endswith("so not at equal cost; one training set, for the settings one search found.")
    assert sentence(COMPARISON, BETTER, COST, conditions=()).endswith("so not at equal cost.")


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(1.01, "+1 %"), (1.0001, "+0.01 %"), (0.5, "−50 %"), (3.5, "+250 %"), (1 + 1e-9, "equal")],
)
def test_ratios_of_parameters(ratio, words):
    assert f"Parameters {words}" in sentence(COMPARISON, BETTER, CostFacts(parameters=ratio))
