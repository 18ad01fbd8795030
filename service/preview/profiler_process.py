"""Build networks without memory for their weights, and count; try optimisers.

`python -m service.preview.profiler_process`.

A process of its own, started when the first preview is asked for: torch takes half a gigabyte that a server does not
need, and what a network's code does with its time is not the server's. One line of JSON in, one line out; it ends with
its input, or after a while without any. The one file of the service that loads torch and the networks.
"""

import json
import os
import select
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from cbam_core.errors import CbamError
from cbam_core.semantics import CURRENT
from cbam_core.spec import ModelSpec, TimmOptimizerSpec

IDLE_SECONDS = 600.0


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """What the network of `model` costs for images of `channels` × `image_size`² and `classes` classes."""
    import torch

    from cbam_core.explain import describe, kept_for_backward
    from cbam_core.networks import build_network
    from cbam_core.networks.inner_attention import inner_attention

    model = ModelSpec.model_validate_json(json.dumps(request["model"]))
    shape = (request["channels"], request["image_size"], request["image_size"])
    try:
        with torch.device("meta"):
            network = build_network(model, request["classes"], request["channels"])
        cost = describe(network, shape)
        kept = kept_for_backward(network, shape)
    except CbamError as error:
        return {"refused": str(error)}
    except (RuntimeError, ValueError, TypeError, AssertionError, ZeroDivisionError) as error:
        size = request["image_size"]
        return {"refused": f"{model.backbone} cannot be built for images of {size}×{size}: {error}"}
    beginning = _beginning(network, model, request)
    return (
        beginning
        if "refused" in beginning
        else {
            **beginning,
            "parameters": cost.parameters,
            "macs": cost.macs,
            "sites": [asdict(site) for site in cost.attention],
            "inner_attention": inner_attention(network),
            "kept_bytes_per_image": kept.bytes_per_image,
            "largest_kept_bytes": kept.largest,
        }
    )


def _beginning(network: Any, model: ModelSpec, request: dict[str, Any]) -> dict[str, Any]:
    """What learns, at which factors of the learning rate, and what a weights file gives where one is asked for."""
    from cbam_core.data_roots import DataRoots
    from cbam_core.initial_weights.fitting import fit_file
    from cbam_core.initial_weights.reading import read_weights
    from cbam_core.networks.learning_rates import lr_scales
    from cbam_core.networks.parts import freeze

    told: dict[str, Any] = {}
    pointer = "/model/weights"
    try:
        if model.weights is not None and "weights" in request:
            roots = DataRoots.of(request["weights"]["roots"])
            file = read_weights(Path(request["weights"]["path"]), roots, sha256=model.weights.sha256)
            report = fit_file(network, file, model.weights, model=model, semantics=CURRENT)
            told["weights"] = report.to_dict()
        pointer = "/model/freeze"
        freeze(network, model.freeze)
        pointer = "/train"
        rates = request["rates"]
        scales = lr_scales(network, layer_decay=rates["layer_decay"], attention=rates["attention"])
    except CbamError as error:
        return {"refused": str(error), "pointer": pointer}
    weights = [(name, weight.numel()) for name, weight in network.named_parameters() if weight.requires_grad]
    of_scale: Counter[float] = Counter()
    for name, count in weights:
        of_scale[scales[name]] += count
    return told | {"trainable_parameters": sum(of_scale.values()), "lr_scales": sorted(of_scale.items())}


def check_optimizer(fields: dict[str, Any]) -> dict[str, Any]:
    """Whether timm's optimiser takes the values of its options."""
    from cbam_core.timm_optimizer import check_timm_optimizer

    try:
        check_timm_optimizer(TimmOptimizerSpec.model_validate_json(json.dumps(fields)))
    except CbamError as error:
        return {"refused": str(error)}
    return {}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What was asked for."""
    return check_optimizer(request["optimizer"]) if "optimizer" in request else measure(request)


def main(requests: TextIO, answers: TextIO) -> None:
    """Answer until the input ends, or nothing was asked for long."""
    while select.select([requests], [], [], IDLE_SECONDS)[0] and (line := requests.readline()):
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    main(sys.stdin, channel)
