"""The small spec that many tests submit."""

from typing import Any

from cbam_core.spec import ExperimentSpec


def spec_dict(**changes: Any) -> dict[str, Any]:
    """A spec that trains in seconds on one core, with top-level parts replaced."""
    spec: dict[str, Any] = {
        "name": "small",
        "project": "tests",
        "model": {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}},
        "data": {"dataset": "digits", "image_size": 8},
        "train": {"epochs": 1, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}},
    }
    return spec | changes


def spec(**changes: Any) -> ExperimentSpec:
    """The same as a spec."""
    return ExperimentSpec.model_validate(spec_dict(**changes))
