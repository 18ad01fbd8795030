"""The network that a training begins with, and the kernels that it runs on."""

import logging
from dataclasses import dataclass

from torch import nn

from cbam_core import fused
from cbam_core.initial_weights.report import WeightsReport
from cbam_core.networks import build_network, published_normalisation
from cbam_core.networks.parts import freeze
from cbam_core.normalisation import Normalisation
from workers.data import Dataset
from workers.data.batches import RankShard
from workers.protocol.assignment import Assignment
from workers.train.compiler import forget_other_code
from workers.train.distributed import ProcessGroup
from workers.train.initial_weights import load_initial_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FirstNetwork:
    """The network that a training begins with, how its images are normalised, and what a weights file gave to it."""

    network: nn.Module
    normalisation: Normalisation
    weights: WeightsReport | None


def make_network(assignment: Assignment, dataset: Dataset, gang: ProcessGroup, share: RankShard) -> FirstNetwork:
    """The network of the spec, with its first weights, on the CPU.

    Raises UnknownBackbone, AttentionNotSupported, StateDictMismatch, WeightsUnavailable, DataError (a weights file out
    of the data roots), and SpecError where `train.fused` is `on` and cannot be, or `model.freeze` names what is not.
    """
    spec, recipe = assignment.spec, assignment.spec.train
    network = build_network(
        spec.model,
        dataset.num_classes,
        dataset.input_shape[0],
        semantics=assignment.semantics,
        seed=recipe.seed_of("init"),
    )
    normalisation, report = published_normalisation(spec.model, dataset.input_shape[0]), None
    if spec.model.weights is not None:
        normalisation, report = load_initial_weights(network, spec.model.weights, assignment, dataset, gang)
    freeze(network, spec.model.freeze)
    reason = fused.configure(network, recipe.fused, gang.device, channels_last=recipe.channels_last)
    if spec.model.attention.type == "cbam":
        logger.info("CBAM's residual tails: %s", "fused kernels" if reason is None else f"plain modules, as {reason}")
    if recipe.compile:
        forget_other_code(_compiled_for(assignment, dataset, gang, share))
    return FirstNetwork(network, normalisation or dataset.normalisation, report)


def _compiled_for(assignment: Assignment, dataset: Dataset, gang: ProcessGroup, share: RankShard) -> tuple[object, ...]:
    """What decides the code that torch.compile makes of the network."""
    fields = {"precision", "channels_last", "accumulate", "sync_batch_norm", "deterministic", "fused"}
    recipe = assignment.spec.train.model_dump(mode="json", include=fields)
    model = assignment.spec.model.model_dump_json(), assignment.semantics
    return *model, dataset.num_classes, dataset.input_shape, share, *recipe.values(), gang.device
