"""What a user may have meant by a field or a name that there is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbam_core.spec import ExperimentSpec, spec_fields
from cbam_core.suggestions import did_you_mean, meant_field


@pytest.mark.parametrize(
    ("location", "field"),
    [
        (("nmae",), "name"),
        (("train", "epcohs"), "epochs"),
        (("model", "attention", "cbam", "redction"), "reduction"),
        (("train", "optimizer", "adamw", "weight_decy"), "weight_decay"),
        (("epochs",), "train.epochs"),
        (("lr",), "train.optimizer.lr"),
        (("data", "flip"), "data.augment.flip"),
    ],
)
def test_a_neighbour_or_a_namesake_is_named(location, field):
    assert meant_field(location, spec_fields()) == f" (did you mean {field}?)"


def test_nothing_is_named_where_nothing_is_close():
    assert meant_field(("zzzzzz",), spec_fields()) == ""
    assert did_you_mean("zzzzzz", ["cbam", "se"]) == ""


def test_the_options_of_another_kind_are_not_neighbours():
    assert meant_field(("model", "attention", "cbam", "pols"), spec_fields()) == " (did you mean pools?)"
    assert meant_field(("model", "attention", "se", "pols"), spec_fields()) == ""


def test_every_field_at_the_top_is_known():
    assert {path[0] for path in spec_fields()} == set(ExperimentSpec.model_fields)


@given(st.text(max_size=200), st.lists(st.text(max_size=20), max_size=5))
def test_no_word_is_too_strange_to_be_compared(word, known):
    assert isinstance(did_you_mean(word, known), str)
