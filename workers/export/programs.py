"""What is exported is tried: the weights, and the programs that need no cbam-lab (torch.export, ONNX)."""

import io
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from cbam_core.errors import ExportError
from cbam_core.spec import ExportFormat
from workers.classifier import Classifier, load_classifier
from workers.protocol.storage import ExperimentFolder, write_atomically
from workers.seeding import generator_of

_TRACED_IMAGES, _TRIED_IMAGES = 2, 5
_TOLERANCE = 1e-4
"""Largest difference of a score, as a share of the largest score (or of 1): kernels add up in another order."""


def check_weights(weights: Path, network: nn.Module, device: torch.device) -> None:
    """Raises ExportError where the classifier in `weights` gives other scores than `network`, which is on `device`.

    In all of fp32: by default cuDNN multiplies with ten bits of mantissa (TF32), and as two layouts in memory choose
    two kernels, the scores of one and the same network then differ by ten times what is tolerated.
    """
    classifier, shape = load_classifier(weights)
    classifier.to(device)
    images = torch.rand(_TRIED_IMAGES, *shape, generator=generator_of("export")).to(device)
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = network.eval().forward((images - classifier.mean) / classifier.std)  # as written, not as compiled
        _compare("safetensors", classifier(images), expected)


def write_programs(folder: ExperimentFolder, formats: Iterable[ExportFormat]) -> None:
    """Write the exported weights of `folder` as programs too: images N C H W in 0..1 to scores N K, for any N.

    Raises ExportError for a network that cannot be traced, and for a program that gives other scores than the network.
    """
    if not formats:
        return
    classifier, shape = load_classifier(folder.weights)
    program = _trace(classifier, shape)
    images = torch.rand(_TRIED_IMAGES, *shape, generator=generator_of("export"))
    with torch.inference_mode():
        expected = classifier(images)
    if "torch_export" in formats:
        write_atomically(folder.torch_program, torch_program(program, images, expected), parents=False)
    if "onnx" in formats:
        write_atomically(folder.onnx_program, onnx_program(program, images, expected), parents=False)


def torch_program(program: ExportedProgram, images: Tensor, expected: Tensor) -> bytes:
    """What torch.export.load reads. Raises ExportError where it does not give the `expected` scores of `images`."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    with torch.inference_mode():
        _compare("torch.export", loaded(images), expected)
    return buffer.getvalue()


def onnx_program(program: ExportedProgram, images: Tensor, expected: Tensor) -> bytes:
    """ONNX with its weights inside, input `images`, output `scores`. Raises ExportError likewise, by ONNX Runtime."""
    import onnxruntime

    try:
        translated = torch.onnx.export(
            program,
            (images,),
            input_names=["images"],
            output_names=["scores"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        assert translated is not None, "only the exporter before dynamo gives none"
        data: bytes = translated.model_proto.SerializeToString()
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        (scores,) = session.run(None, {"images": images.numpy()})
    except Exception as error:  # neither has a common type for what it cannot do
        raise ExportError(f"this network cannot be an ONNX program: {error}") from error
    _compare("ONNX", torch.from_numpy(scores), expected)
    return data


def _trace(classifier: Classifier, shape: tuple[int, int, int]) -> ExportedProgram:
    images = torch.rand(_TRACED_IMAGES, *shape)
    try:
        return torch.export.export(classifier, (images,), dynamic_shapes={"images": {0: Dim("batch", min=1)}})
    except Exception as error:  # the tracer has no common type for what it cannot do
        raise ExportError(f"torch.export cannot trace this network: {error}") from error


def _compare(name: str, scores: Tensor, expected: Tensor) -> None:
    difference, largest = (scores - expected).abs().max().item(), expected.abs().max().item()
    if not difference <= _TOLERANCE * max(1.0, largest):
        raise ExportError(
            f"the {name} program differs from the network: by {difference:.2g} in scores to {largest:.2g}"
        )
