"""Changes of specs in which a part is its type alone."""

import pytest

from service.domain.spec_patch import apply_patch


@pytest.mark.parametrize("path", ["model.attention", "train.optimizer", "train.schedule"])
def test_an_option_is_put_beside_a_type_that_stands_alone(path):
    part, name = path.split(".")
    fields = {part: {name: "x", "other": 1}}
    assert apply_patch(fields, {f"{path}.option": 4}) == {part: {name: {"type": "x", "option": 4}, "other": 1}}
    assert apply_patch(fields, {part: {name: {"type": "y", "option": 4}}})[part][name] == {"type": "y", "option": 4}


def test_a_type_alone_takes_the_place_of_another_part():
    fields = {"model": {"attention": {"type": "cbam", "reduction": 4}}}
    assert apply_patch(fields, {"model.attention": "se"}) == {"model": {"attention": "se"}}
