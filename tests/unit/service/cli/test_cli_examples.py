"""The specs that users copy."""

from pathlib import Path

import pytest

from cbam_core.spec import read_spec
from service.cli.commands.demo import spec_of
from service.client.comparing.specs import read_comparison
from service.comparisons.submission import base_spec, variant_specs

EXAMPLES = Path(__file__).parents[4] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_can_be_submitted(path):
    assert read_spec(path).name == path.stem


def test_the_demo_asks_what_the_examples_show():
    comparison = read_comparison(EXAMPLES / "comparisons" / "does-cbam-help.yaml")
    assert spec_of(None) == comparison
    assert spec_of(2) == comparison.model_copy(update={"seeds": spec_of(2).seeds})


@pytest.mark.parametrize(("variant", "attention"), [("plain", "none"), ("se", "se"), ("cbam", "cbam")])
def test_the_demo_trains_the_examples(variant: str, attention: str):
    trained = variant_specs(spec_of(None), base_spec(spec_of(None)))[variant]
    example = read_spec(EXAMPLES / f"digits-{attention}.yaml")
    assert trained == example.model_copy(update={"name": trained.name})
