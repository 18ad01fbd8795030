"""The specs that users copy."""

from pathlib import Path

import pytest

from cbam_core.spec import ExperimentSpec, read_spec
from service.cli.commands.demo import ATTENTIONS, spec_for

EXAMPLES = Path(__file__).parents[4] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_can_be_submitted(path):
    assert read_spec(path).name == path.stem


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_demo_runs_the_examples(attention):
    demo = ExperimentSpec.model_validate(spec_for(attention))
    example = read_spec(EXAMPLES / f"digits-{attention}.yaml")
    assert demo == example.model_copy(update={"name": demo.name})
