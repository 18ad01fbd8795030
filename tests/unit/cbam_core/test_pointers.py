"""Errors point into what the user wrote, not into how the spec is modelled."""

import pytest

from cbam_core.errors import SpecError
from cbam_core.pointers import json_pointer
from cbam_core.spec import make_spec, read_spec


def test_the_member_of_a_union_is_not_in_the_pointer():
    body = {"model": {"attention": {"type": "cbam", "kernel_size": 4}}}
    location = ("model", "attention", "cbam", "kernel_size")
    assert json_pointer(location, body) == "/model/attention/kernel_size"


def test_a_missing_field_is_in_the_pointer_though_it_is_not_in_the_body():
    assert json_pointer(("model", "backbone"), {"model": {}}, is_missing=True) == "/model/backbone"


def test_slashes_and_tildes_in_a_key_are_escaped():
    assert json_pointer(("tags", "a/b~c"), {"tags": {"a/b~c": 1}}) == "/tags/a~1b~0c"


def test_a_list_is_pointed_into_by_number():
    assert json_pointer(("model", "stages", 1), {"model": {"stages": [1, 9]}}) == "/model/stages/1"


def test_everything_wrong_is_said_at_once_and_with_its_source(tmp_path):
    fields = {"name": "x", "model": {"backbone": "resnet19"}, "data": {"dataset": "digits"}, "colour": "red"}
    with pytest.raises(SpecError) as refused:
        make_spec(fields, source="my.yaml")
    lines = str(refused.value).splitlines()
    assert any(line.startswith("my.yaml: /model/backbone: unknown backbone") for line in lines)
    assert any(line.startswith("my.yaml: /colour: ") for line in lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [("- a\n- b\n", "holds list"), ("a: [", "not valid YAML"), ("", "holds NoneType"), ("a: 1", "/name")],
)
def test_a_file_that_is_no_spec_says_why(tmp_path, text, words):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=words):
        read_spec(path)
    with pytest.raises(SpecError, match="cannot read"):
        read_spec(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"model": {"backbone": "resnet18", "attention": 3}},
            "/model/attention: a mapping of fields is wanted here",
        ),
        ({"model": {"backbone": "resnet18", "attention": {"reduction": 4}}}, "/model/attention: its `type` is missing"),
        ({"model": "resnet18"}, "/model: a mapping of fields is wanted here"),
        ({"train": {"ema": 0.9}}, "/train/ema: a mapping of fields is wanted here"),
    ],
)
def test_what_is_no_part_of_a_spec_is_told_in_words_of_specs(fields, words):
    whole = {"name": "x", "model": {"backbone": "resnet18"}, "data": {"dataset": "digits"}}
    with pytest.raises(SpecError, match=f"^my.yaml: {words}"):
        make_spec(whole | fields, source="my.yaml")
