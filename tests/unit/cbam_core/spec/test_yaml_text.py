"""YAML 1.2 as specs are written in it: what is a number, what is text, and no key twice."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cbam_core.errors import SpecError
from cbam_core.spec import ExperimentSpec, read_spec
from cbam_core.yaml_text import as_text, parse_yaml, to_yaml

SPEC = "name: {name}\nmodel: {{backbone: cifar_resnet20}}\ndata: {{dataset: digits}}\n"
ODD_TEXTS = ("010", "0o17", "0x1f", "yes", "off", "1:30", "1e-4", "1.", ".5", "~", "null", "<<", "", "2026-01-01", "=")
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
"""Without the characters that specs refuse."""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("-08", -8),
        ("0o17", 15),
        ("0x1F", 31),
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("1.", 1),
        ("-.inf", -math.inf),
    ],
)
def test_numbers(text, value):
    assert parse_yaml(f"a: {text}") == {"a": value}


@pytest.mark.parametrize(
    "text", ["1:30", "190:20:30.15", "yes", "No", "on", "OFF", "2026-01-01", "1_000", "0b1", "0o9"]
)
def test_what_only_yaml_1_1_takes_for_something_else_is_text(text):
    assert parse_yaml(f"a: {text}") == {"a": text}


def test_only_true_and_false_are_booleans():
    assert parse_yaml("[true, True, FALSE, null, ~, '']") == [True, True, False, None, None, ""]


@pytest.mark.parametrize(
    ("text", "key", "first", "line"),
    [
        ("train: {epochs: 1}\nname: a\ntrain: {seed: 1}", "train", 1, 3),
        ("a:\n  b: 1\n  'b': 2\n", "b", 2, 3),
        ('{"a": 1, "a": 2}', "a", 1, 1),
        ("- a: 1\n  a: 1\n", "a", 1, 2),
    ],
)
def test_a_key_that_stands_twice_is_an_error_with_its_line(text, key, first, line):
    with pytest.raises(SpecError, match=f"line {line}: the key '{key}' stands twice; the first time in line {first}"):
        parse_yaml(text)


def test_a_file_is_named_with_the_line(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(name="a") + "train: {epochs: 3}\ntrain: {seed: 1}\n")
    with pytest.raises(SpecError, match=r"spec\.yaml: line 5: the key 'train'"):
        read_spec(path)


def test_a_merged_key_may_be_overridden_wherever_the_mapping_is_used_again():
    text = "a: {deep: &A {<<: &B {u: 1, v: 1}, u: 2}}\nc: {<<: *A, v: 3}\nd: {<<: *B}\n"
    assert parse_yaml(text) == {"a": {"deep": {"u": 2, "v": 1}}, "c": {"u": 2, "v": 3}, "d": {"u": 1, "v": 1}}


def test_too_many_digits_are_no_valid_yaml():
    with pytest.raises(SpecError, match="not valid YAML"):
        parse_yaml("a: " + "1" * 5000)


def test_scalars_become_the_text_that_was_written_where_text_is_wanted():
    fields = parse_yaml(
        SPEC.format(name="007") + "tags: {version: 1.10, seed: 0, best: true, 3: x, when: 2026-01-01}\n"
    )
    spec = ExperimentSpec.model_validate(fields)
    assert spec.name == "007"
    assert spec.tags == {"version": "1.10", "seed": "0", "best": "true", "3": "x", "when": "2026-01-01"}
    assert as_text(0.25) == "0.25"
    assert as_text(None) is None


def test_a_number_is_a_plain_one_in_a_spec():
    spec = ExperimentSpec.model_validate(parse_yaml(SPEC.format(name="a") + "train: {epochs: 010, ema: {decay: 0.90}}"))
    assert type(spec.train.epochs) is int
    assert type(spec.train.ema.decay) is float
    assert spec.train.epochs == 10


@given(st.dictionaries(TEXTS, TEXTS | st.integers()))
def test_what_is_written_is_read_again_by_either_version_of_yaml(value):
    assert parse_yaml(to_yaml(value)) == value
    assert yaml.safe_load(to_yaml(value)) == value


def test_what_was_read_can_be_written():
    assert to_yaml(parse_yaml("a: 010\nb: 1.50\n")) == "a: 10\nb: 1.5\n"


@pytest.mark.parametrize(
    "text", ["!!bool maybe", "!!timestamp x", "!!timestamp 2026-01-01", "!!set {a}", "!!binary YQ=="]
)
def test_types_beyond_the_core_schema_are_refused(text):
    with pytest.raises(SpecError, match="not valid YAML"):
        parse_yaml(f"a: {text}")
