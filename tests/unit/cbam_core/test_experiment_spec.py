"""Specs from files, and what the parts refuse: every refusal names the number that is wrong."""

import pytest
from pydantic import ValidationError

from cbam_core.errors import CbamError, SpecError
from cbam_core.spec import ExperimentSpec, parse_yaml, read_spec

PLAIN = {"name": "plain", "model": {"backbone": "cifar_resnet20"}, "data": {"dataset": "digits"}}


def test_a_file_and_its_words(tmp_path):
    """YAML 1.2: `1e-4` is a number, as people mean it, and `no` in a tag's value stays what it is in quotes."""
    path = tmp_path / "spec.yaml"
    path.write_text(
        "name: cbam\nmodel: {backbone: resnet18, attention: {type: cbam, pools: [max]}, stages: [3, 4]}\n"
        "data: {dataset: cifar10, root: /data/cifar10}\ntrain: {optimizer: {type: adamw, lr: 1e-4}}\ntags: {a: 'no'}\n"
    )
    spec = read_spec(path)
    assert spec.train.optimizer.lr == 1e-4
    assert spec.model.attention.pools == ("max",)
    assert spec.model.stages == (3, 4)
    path.write_text(spec.to_yaml())
    assert read_spec(path) == spec


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a: [1", "not valid YAML"), (b"- 1\n", "holds list, not a mapping"), (b"\xff\xfe\xff", "cannot read")],
)
def test_files_that_are_no_specs(tmp_path, content, message):
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=message):
        read_spec(path)
    with pytest.raises(SpecError, match="cannot read"):
        read_spec(tmp_path / "nothing.yaml")


def test_a_wrong_field_in_a_file_is_named_by_file_and_pointer(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(
        "name: a\nmodel: {backbone: resnet18, attention: {type: cbam, kernel_size: 4}}\ndata: {dataset: digits}\n"
    )
    with pytest.raises(SpecError, match=r"spec\.yaml: /model/attention/kernel_size: .*must be odd"):
        read_spec(path)


def test_yaml_runs_no_code():
    with pytest.raises(SpecError, match="could not determine a constructor"):
        parse_yaml("!!python/object/apply:os.system ['true']")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": "x"}, "Extra inputs"),
        ({"data": {"dataset": "digits", "root": "/data"}}, "leave `root` out"),
        ({"data": {"dataset": "cifar10"}}, "say which in `root`"),
        ({"data": {"dataset": "cifar10", "root": "data"}}, "absolute"),
        ({"train": {"epochs": 3, "schedule": {"type": "cosine", "warmup_epochs": 3}}}, r"warmup_epochs \(3.0\)"),
        (
            {"train": {"optimizer": {"type": "adamw"}, "schedule": {"type": "cosine", "min_lr": 0.01}}},
            r"min_lr \(0\.01\) must not be above the optimizer's lr \(0\.001\)",
        ),
        ({"train": {"global_batch_size": 10}, "resources": {"workers": 3}}, r"\(10\) must divide by workers \(3\)"),
        ({"checkpoint": {"metric": "val/loss"}}, "val/loss is best at its minimum"),
        ({"data": {"dataset": "digits", "augment": {"crop_padding": 4, "random_resized_crop": True}}}, "choose one"),
        (
            {"data": {"dataset": "synthetic", "augment": {"rand_augment": {}, "trivial_augment": True}}},
            "two policies; choose one",
        ),
        (
            {"data": {"dataset": "digits", "augment": {"erasing_fill": "mean"}}},
            "erasing_fill is of what erasing erases",
        ),
        ({"train": {"loss": "bce", "class_weights": "balanced"}}, "class_weights are of cross_entropy"),
        ({"data": {"dataset": "digits", "augment": {"hue": 0.1}}}, "digits is grey"),
        ({"data": {"dataset": "digits", "augment": {"saturation": 0.1}}}, "digits is grey"),
        ({"data": {"dataset": "digits", "image_size": 8, "augment": {"crop_padding": 8}}}, "less than image_size"),
        ({"train": {"optimizer": {"type": "sgd", "momentum": 0.0, "nesterov": True}}}, "nesterov needs a momentum"),
        ({"train": {"accumulate": 3, "global_batch_size": 64}}, r"workers \(1\) × accumulate \(3\)"),
        ({"resources": {"workers": {"min": 3, "max": 2}}}, r"min \(3\) must not be above max \(2\)"),
        (
            {"resources": {"workers": {"min": 3, "max": 3}}, "train": {"global_batch_size": 64}},
            r"workers \(from 3 to 3\)",
        ),
        ({"train": {"sync_batch_norm": True}, "resources": {"workers": 2}}, "between GPUs only"),
        ({"train": {"sync_batch_norm": True}, "resources": {"workers": {"min": 1, "max": 2}}}, "between GPUs only"),
        ({"resources": {"workers": 0}}, "greater than or equal to 1"),
        ({"resources": {"gpus_per_worker": 5e-324}}, r"at least 0\.0001"),
        ({"resources": {"gpus_per_worker": 0.00009}}, "in ten-thousandths"),
        ({"train": {"optimizer": {"lr": float("nan")}}}, "sgd|type"),
    ],
)
def test_impossible_specs(change, message):
    with pytest.raises(ValidationError, match=message):
        ExperimentSpec.model_validate({**PLAIN, **change})


def test_specs_never_change():
    spec = ExperimentSpec.model_validate(PLAIN)
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"


def test_an_error_says_its_docstring():
    assert str(CbamError()) == "Something went wrong in cbam-lab."
    assert str(SpecError("not this")) == "not this"


def elastic(least: int, most: int, batch: int = 12) -> ExperimentSpec:
    return ExperimentSpec.model_validate(
        {
            "name": "elastic",
            "model": {"backbone": "cifar_resnet20"},
            "data": {"dataset": "digits"},
            "train": {"global_batch_size": batch},
            "resources": {"workers": {"min": least, "max": most}},
        }
    )


def test_an_elastic_experiment_takes_the_sizes_that_split_its_batch():
    assert elastic(1, 8).world_sizes == (6, 4, 3, 2, 1)
    with pytest.raises(ValidationError, match="must divide by workers"):
        elastic(5, 5)
    with pytest.raises(ValidationError, match="must not be above max"):
        elastic(4, 2)


FUSED = {
    "model": {"backbone": "resnet18", "attention": {"type": "cbam"}},
    "train": {"channels_last": True, "fused": "on"},
    "resources": {"gpus_per_worker": 1},
}


def test_fused_may_be_asked_for_where_it_can_apply():
    assert spec_with(FUSED).train.fused == "on"
    assert spec_with({}).train.fused == "auto"


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ({"model": {"backbone": "resnet18", "attention": {"type": "se"}}}, "attention of type cbam"),
        (
            {"model": {"backbone": "resnet18", "attention": {"type": "cbam", "order": "parallel"}}},
            "order channel_spatial",
        ),
        ({"model": {"backbone": "resnet18", "attention": {"type": "cbam", "gate": "hard_sigmoid"}}}, "sigmoid gates"),
        ({"model": {"backbone": "resnet18", "attention": {"type": "cbam", "pools": ["avg"]}}}, "pool by avg and max"),
        ({"model": {"backbone": "resnet18", "attention": {"type": "cbam", "kernel_size": 9}}}, "kernel_size of 7"),
        ({"model": {"backbone": "mobilenet_v1", "attention": {"type": "cbam"}}}, "residual family"),
        ({"model": {"backbone": "timm:resnet18", "attention": {"type": "cbam"}}}, "residual family"),
        ({"train": {"fused": "on"}}, "train.channels_last"),
        ({"resources": {}}, "gpus_per_worker"),
    ],
)
def test_fused_on_says_what_it_lacks(change, lacks):
    with pytest.raises(ValidationError, match=lacks):
        spec_with(FUSED | change)


@pytest.mark.parametrize(("word", "mode"), [("off", "off"), ("'off'", "off"), ("auto", "auto")])
def test_off_is_a_word_though_yaml_takes_it_for_a_boolean(word, mode):
    fields = parse_yaml(
        f"name: x\nmodel: {{backbone: resnet18}}\ndata: {{dataset: digits}}\ntrain: {{fused: {word}}}\n"
    )
    assert ExperimentSpec.model_validate(fields).train.fused == mode


def spec_with(parts):
    return ExperimentSpec.model_validate({**PLAIN, **parts})
