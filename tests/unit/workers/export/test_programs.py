import hashlib
import json

import pytest
import torch
from torch import nn

from cbam_core.errors import ExportError, SpecError
from workers.classifier import Classifier, load_classifier
from workers.export import programs, requirements
from workers.export.requirements import require, require_compiler


@pytest.mark.timeout(240)
def test_a_training_leaves_programs_that_predict_as_its_weights_do(tiny_spec, assign, train):
    """Both run without cbam-lab, for any number of images."""
    import onnxruntime

    assignment = assign(tiny_spec(train={"epochs": 1}, export=["torch_export", "onnx"]))
    outcome, _ = train(assignment)
    assert outcome.outcome == "succeeded", outcome.message
    folder = assignment.folder
    classifier, shape = load_classifier(folder.weights)
    torch_program = torch.export.load(folder.torch_program).module()
    session = onnxruntime.InferenceSession(folder.onnx_program, providers=["CPUExecutionProvider"])
    for count in (1, 7):
        images = torch.rand(count, *shape)
        expected = classifier(images)
        torch.testing.assert_close(torch_program(images), expected)
        (scores,) = session.run(["scores"], {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(scores), expected, atol=1e-4, rtol=1e-4)


def test_nothing_is_exported_that_nobody_asked_for(tiny_spec, assign, train):
    assignment = assign(tiny_spec(train={"epochs": 1}))
    train(assignment)
    names = {"model.safetensors", "predictions.parquet", "confusion_matrix.json", "confusion_matrix_test.json"}
    assert {path.name for path in assignment.folder.export.iterdir()} == {*names, "manifest.json"}
    files = json.loads((assignment.folder.export / "manifest.json").read_text())["files"]
    for name in names:
        content = (assignment.folder.export / name).read_bytes()
        assert files.pop(name) == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert files == {}


def test_a_missing_extra_is_told_before_the_training(tiny_spec, assign, train, monkeypatch):
    monkeypatch.setattr(requirements, "_ONNX_PACKAGES", ("onnx", "no_such_runtime"))
    outcome, seen = train(assign(tiny_spec(export=["onnx"])))
    assert outcome.message.startswith("ExportError: ONNX needs no_such_runtime: install cbam-lab[onnx]")
    assert not any(progress.step for progress in seen)
    require(["torch_export"])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_missing_compiler_is_told_before_the_training(device, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(requirements.shutil, "which", lambda _: None)
    with pytest.raises(SpecError, match="apt install gcc"):
        require_compiler(torch.device(device))
    monkeypatch.setattr(requirements.shutil, "which", lambda name: f"/bin/{name}" if name in ("gcc", "g++") else None)
    require_compiler(torch.device(device))


def test_what_a_network_has_but_does_not_save_is_there_again(tiny_spec, assign, train):
    """The filters of an anti-aliasing blur are buffers that stay out of the weights."""
    assignment = assign(
        tiny_spec(model={"backbone": "timm:resnetblur18"}, train={"epochs": 1}, data={"image_size": 32})
    )
    outcome, _ = train(assignment)
    assert outcome.outcome == "succeeded", outcome.message
    classifier, shape = load_classifier(assignment.folder.weights)
    assert classifier(torch.rand(2, *shape)).isfinite().all()


def traced(network, shape=(1, 4, 4)):
    classifier = Classifier(network, (0.5,), (0.5,)).eval()
    return classifier, programs._trace(classifier, shape)


@pytest.mark.parametrize("write", [programs.torch_program, programs.onnx_program])
def test_a_program_that_differs_from_its_network_is_not_kept(write):
    classifier, program = traced(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
    images = torch.rand(5, 1, 4, 4)
    with pytest.raises(ExportError, match="differs from the network"):
        write(program, images, classifier(images).detach() + 1e-2)


def test_weights_that_are_not_the_networks_are_found(tiny_spec, assign, train):
    assignment = assign(tiny_spec(train={"epochs": 1}))
    train(assignment)
    network = load_classifier(assignment.folder.weights)[0].network
    programs.check_weights(assignment.folder.weights, network, torch.device("cpu"))
    with torch.no_grad():
        network.fc.bias += 1e-2
    with pytest.raises(ExportError, match="safetensors"):
        programs.check_weights(assignment.folder.weights, network, torch.device("cpu"))


def test_a_network_that_cannot_be_traced_is_named_as_such():
    class Undecided(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    with pytest.raises(ExportError, match=r"torch\.export cannot trace"):
        traced(Undecided())
