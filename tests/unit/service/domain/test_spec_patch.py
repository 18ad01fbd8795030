"""Changes of specs in which a part is its type alone, or is not there."""

import pytest

from cbam_core.errors import SpecError
from cbam_core.spec import ExperimentSpec, make_spec
from cbam_core.yaml_text import to_yaml
from service.cli.specs import read_overrides, read_specs
from service.domain.spec_patch import apply_patch
from tests.support.specs import spec_dict


@pytest.mark.parametrize("path", ["model.attention", "train.optimizer", "train.schedule"])
def test_an_option_is_put_beside_a_type_that_stands_alone(path):
    part, name = path.split(".")
    fields = {part: {name: "x", "other": 1}}
    assert apply_patch(fields, {f"{path}.option": 4}) == {part: {name: {"type": "x", "option": 4}, "other": 1}}
    assert apply_patch(fields, {part: {name: {"type": "y", "option": 4}}})[part][name] == {"type": "y", "option": 4}


def test_a_type_alone_takes_the_place_of_another_part():
    fields = {"model": {"attention": {"type": "cbam", "reduction": 4}}}
    assert apply_patch(fields, {"model.attention": "se"}) == {"model": {"attention": "se"}}


BARE = spec_dict(model={"backbone": "cifar_resnet20"}, train={"epochs": 2})


@pytest.mark.parametrize(
    "overrides",
    [
        {"train.optimizer.lr": 0.02},
        {"train": {"optimizer": {"lr": 0.02}}},
        {"train.optimizer": {"lr": 0.02}},
        {"train": None, "train.optimizer.lr": 0.02},
    ],
)
@pytest.mark.parametrize("train", [{}, {"train": {"optimizer": "sgd"}}, {"train": {"optimizer": {"type": "sgd"}}}])
def test_an_option_of_a_part_that_is_not_there_is_one_of_the_default_kind(overrides, train):
    spec = ExperimentSpec.model_validate(apply_patch(BARE | train, overrides))
    assert spec.train.optimizer == ExperimentSpec.model_validate(BARE).train.optimizer.model_copy(update={"lr": 0.02})


@pytest.mark.parametrize("name", ["optimizer", "schedule"])
def test_the_default_kind_is_the_one_that_the_spec_would_have_had(name):
    default = getattr(ExperimentSpec.model_validate(BARE).train, name)
    for option, value in default.model_dump(mode="json", exclude={"type"}).items():
        patched = apply_patch(BARE, {f"train.{name}.{option}": value})
        assert getattr(ExperimentSpec.model_validate(patched).train, name) == default


def test_another_kind_has_nothing_of_the_default_one():
    assert apply_patch({}, {"train.optimizer": {"type": "adamw", "lr": 0.001}}) == {
        "train": {"optimizer": {"type": "adamw", "lr": 0.001}}
    }
    assert apply_patch({}, {"train.optimizer.type": "adamw"}) == {"train": {"optimizer": {"type": "adamw"}}}


def test_a_spec_and_its_clone_take_the_same_option():
    """A clone is made from the stored spec, which has every default written out."""
    whole = ExperimentSpec.model_validate(BARE).model_dump(mode="json")
    for overrides in ({"train.optimizer.lr": 0.5}, {"train.schedule.warmup_epochs": 1}):
        bare, clone = (ExperimentSpec.model_validate(apply_patch(fields, overrides)) for fields in (BARE, whole))
        assert bare == clone


@pytest.mark.parametrize("model", [{}, {"attention": "none"}, {"attention": {"type": "none"}}])
def test_an_option_that_the_default_kind_does_not_have_names_those_that_have_it(model):
    fields = apply_patch(BARE | {"model": {"backbone": "resnet18"} | model}, {"model.attention.reduction": 8})
    with pytest.raises(
        SpecError, match=r"/model/attention/reduction: there is no such field of none, only of type cbam"
    ):
        make_spec(fields, source="spec.yaml")


def test_set_of_the_command_does_the_same(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text(to_yaml(BARE))
    (spec,) = read_specs([file], read_overrides(["train.optimizer.lr=0.02"]))
    assert (spec.train.optimizer.type, spec.train.optimizer.lr) == ("sgd", 0.02)
