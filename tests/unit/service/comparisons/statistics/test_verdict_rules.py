"""The rules that make a verdict, the first that holds."""

from itertools import product

import pytest

from service.comparisons.statistics import Evidence, Scope, Verdict, choose_verdict

STRONG = {"difference": 0.01, "differs": True, "equal": True, "differs_on_new": True, "equal_on_new": True}
NEW, THESE = Scope.NEW_IMAGES, Scope.THESE_IMAGES


@pytest.mark.parametrize(
    ("evidence", "verdict", "scope"),
    [
        (STRONG | {"comparable": False, "running": True, "n": 3}, Verdict.NOT_COMPARABLE, None),
        (STRONG | {"running": True, "n": 3}, Verdict.RUNNING, None),
        (STRONG | {"n": 7}, Verdict.NOT_SHOWN, None),
        (STRONG, Verdict.BETTER_WITHIN_MARGIN, NEW),
        (STRONG | {"difference": -0.01}, Verdict.WORSE_WITHIN_MARGIN, NEW),
        (STRONG | {"differs_on_new": False}, Verdict.BETTER_WITHIN_MARGIN, THESE),
        (STRONG | {"equal_on_new": False}, Verdict.BETTER_WITHIN_MARGIN, THESE),
        (STRONG | {"equal": False, "equal_on_new": False}, Verdict.BETTER, NEW),
        (STRONG | {"equal": False, "differs_on_new": False}, Verdict.BETTER, THESE),
        (STRONG | {"equal": False, "difference": -0.01}, Verdict.WORSE, NEW),
        (STRONG | {"differs": False, "differs_on_new": False}, Verdict.EQUAL, NEW),
        (STRONG | {"differs": False, "equal_on_new": False}, Verdict.EQUAL, THESE),
        (STRONG | {"differs": False, "equal": False}, Verdict.NOT_SHOWN, None),
    ],
)
def test_the_first_rule_that_holds(evidence, verdict, scope):
    assert choose_verdict(Evidence(**evidence)) == (verdict, scope)


def test_only_what_was_found_has_a_scope():
    flags = ("comparable", "running", "differs", "equal", "differs_on_new", "equal_on_new")
    for values in product((True, False), repeat=len(flags)):
        for n in (7, 8):
            verdict, scope = choose_verdict(Evidence(n=n, **dict(zip(flags, values, strict=True))))
            silent = {Verdict.NOT_COMPARABLE, Verdict.RUNNING, Verdict.NOT_SHOWN}
            assert (scope is None) == (verdict in silent)
