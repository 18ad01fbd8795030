"""A part that names its kind by `type` may be that name alone."""

import pytest

from cbam_core.errors import SpecError
from cbam_core.spec import make_spec

PLAIN = {"name": "plain", "model": {"backbone": "resnet18"}, "data": {"dataset": "digits"}}


@pytest.mark.parametrize("kind", ["none", "cbam", "se", "eca"])
def test_an_attention_module_by_its_type_alone(kind):
    short = make_spec(PLAIN | {"model": {"backbone": "resnet18", "attention": kind}}, source="x")
    long = make_spec(PLAIN | {"model": {"backbone": "resnet18", "attention": {"type": kind}}}, source="x")
    assert short == long
    assert short.model.attention.type == kind


def test_an_optimizer_and_a_schedule_by_their_types_alone():
    spec = make_spec(PLAIN | {"train": {"optimizer": "sgd", "schedule": "constant"}}, source="x")
    assert (spec.train.optimizer.type, spec.train.schedule.type) == ("sgd", "constant")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": {"backbone": "resnet18", "attention": "cbm"}}, "/model/attention: .*did you mean cbam"),
        ({"train": {"optimizer": "adm"}}, "/train/optimizer: unknown optimiser 'adm' .did you mean adamw"),
        ({"train": {"optimizer": "timm:lion"}}, "/train/optimizer/lr: Field required"),
        ({"train": {"schedule": "cosin"}}, "/train/schedule: .*did you mean cosine"),
    ],
)
def test_a_type_that_there_is_not_is_told_as_in_the_long_form(fields, words):
    with pytest.raises(SpecError, match=words):
        make_spec(PLAIN | fields, source="x")
