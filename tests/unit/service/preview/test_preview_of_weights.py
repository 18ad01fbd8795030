"""A preview says what a weights file gives, what learns, and at which rates; or why it will not do."""

import torch

from cbam_core.networks import build_network
from cbam_core.spec import ModelSpec
from tests.support.specs import spec_dict

PATH = "/v1/experiments/preview"
MODEL = {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}}


def save(settings, classes=10, **model):
    settings.data_roots[0].mkdir(parents=True, exist_ok=True)
    path = settings.data_roots[0] / "w.pth"
    network = build_network(ModelSpec.model_validate(MODEL | model), classes, 1)
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}, path)
    return path, network


def previewed(http, **model):
    return http.post(PATH, json=spec_dict(model=MODEL | model))


def test_a_file_that_fits_is_told(http, settings):
    path, network = save(settings, attention={"type": "none"})
    answer = previewed(http, weights={"source": str(path), "attention": "drop"})
    assert answer.status_code == 200, answer.text
    told = answer.json()["weights"]
    assert told["loaded"] == len(network.state_dict())
    assert told["missing_count"] > len(told["missing"]) == 20
    assert all(".attention." in name for name in told["missing"])
    assert (told["unexpected"], told["layout"], told["normalisation"]) == ([], "ours", "imagenet")


def test_a_file_that_does_not_fit_is_refused(http, settings):
    path, _ = save(settings, classes=7)
    answer = previewed(http, weights=str(path))
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["pointer"]) == (422, "/model/weights")
    assert "head: drop" in error["detail"]
    assert previewed(http, weights={"source": str(path), "head": "drop"}).status_code == 200


def test_what_learns_and_at_which_rates(http):
    body = spec_dict(model=MODEL | {"freeze": "backbone"})
    body["train"] |= {"layer_decay": 0.5, "attention_lr_scale": 2.0}
    told = http.post(PATH, json=body).json()
    whole = http.post(PATH, json=spec_dict(model=MODEL)).json()
    assert told["trainable_parameters"] == told["attention_parameters"] + 650  # the head: 64 × 10 + 10
    assert whole["trainable_parameters"] == whole["parameters"]
    assert whole["lr_scales"] == [{"scale": 1.0, "parameters": whole["parameters"]}]
    assert [rate["scale"] for rate in told["lr_scales"]] == [2 * 0.5**layer for layer in range(9, 1, -1)] + [1.0, 1.0][
        :1
    ]
    assert told["memory"]["optimizer"] == 4 * told["trainable_parameters"] < whole["memory"]["optimizer"]
    assert "frozen_at_random" in {warning["code"] for warning in told["warnings"]}


def test_what_cannot_apply_is_refused(http):
    answer = previewed(http, freeze="layer9")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/model/freeze"]
    body = spec_dict(model=MODEL | {"attention": {"type": "simam"}})
    body["train"]["attention_lr_scale"] = 2.0
    answer = http.post(PATH, json=body)
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/train"]


def test_a_file_that_is_not_seen_is_left_to_the_workers(http, settings):
    answer = previewed(http, weights=str(settings.data_roots[0] / "w.pth")).json()
    assert answer["weights"] is None
    assert "weights_not_seen" in {warning["code"] for warning in answer["warnings"]}
