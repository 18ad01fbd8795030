"""What a user says about an experiment. Read these files in their order: they are the tutorial."""

import pytest
from pydantic import ValidationError

from cbam_core.spec import ExperimentSpec, parse_yaml

TEXT = """
name: my-first
model:
  backbone: cifar_resnet20
  attention: {type: cbam, reduction: 8}
data: {dataset: digits, image_size: 16}
train: {epochs: 5, global_batch_size: 64, optimizer: {type: sgd, lr: 1e-1}}
"""


def test_a_spec_is_data_with_a_default_for_everything_that_has_a_usual_value():
    """Only the name, the backbone and the dataset must be said."""
    spec = ExperimentSpec.model_validate(parse_yaml(TEXT))
    assert spec.model.attention.reduction == 8
    assert spec.model.attention.kernel_size == 7
    assert spec.train.optimizer.lr == 0.1
    assert spec.resources.workers == 1


def test_a_word_that_means_nothing_is_an_error_and_never_ignored():
    """So a typo cannot run for a day with the default in its place."""
    with pytest.raises(ValidationError, match="reductoin"):
        ExperimentSpec.model_validate(parse_yaml(TEXT.replace("reduction", "reductoin")))


def test_a_spec_never_changes_once_it_is_made():
    """What was submitted is what runs, is what MLflow shows."""
    spec = ExperimentSpec.model_validate(parse_yaml(TEXT))
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]
