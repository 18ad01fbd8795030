"""How much memory a training will take on each worker: a sum of what is known before it starts.

Counted are the tensors of the training, in bytes, for P parameters and b images a pass (the worker's share of the
global batch, divided by `accumulate`):

    weights       4 P, and 2 P more for the copies that autocast makes in half precision
    gradients     4 P, of those parameters that learn
    optimiser     4 P for SGD with momentum, 8 P for AdamW and LAMB (two moments), 4 to 16 P for timm's; likewise
    average       4 P with `ema`
    activations   b × what autograd keeps for an image (every storage once; counted on the network itself), half of
                  it in half precision, and twice the largest of them for the gradients in flight
    images        the dataset as bytes: it lives on the training device, but for a folder that stays on disk

Not counted: the runtime (Python, torch and CUDA: 0.5 to 1 GB on either side), the workspace of convolutions, what the
allocator cannot use between blocks, and `compile`, which keeps less.
"""

from dataclasses import dataclass

from cbam_core.datasets import OF_FILES, DatasetFacts
from cbam_core.spec import ExperimentSpec, SGDSpec, TimmOptimizerSpec
from service.preview.profiler import Measured

FP32_BYTES = 4
HALF_BYTES = 2


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on each worker."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    images: int | None

    @property
    def total(self) -> int:
        """All of it; without the images where only a folder knows how many that this server does not see."""
        parts = (self.weights, self.gradients, self.optimizer, self.average, self.activations, self.images or 0)
        return sum(parts)


def images_per_pass(spec: ExperimentSpec) -> int:
    """Images that go through the network at once on one worker, where the smallest gang trains."""
    return spec.train.global_batch_size // (spec.world_sizes[-1] * spec.train.accumulate)


def estimate(spec: ExperimentSpec, measured: Measured, facts: DatasetFacts) -> MemoryEstimate:
    """The sum above."""
    parameters = FP32_BYTES * measured.parameters
    half = spec.train.precision != "fp32"
    kept = images_per_pass(spec) * (measured.kept_bytes_per_image + 2 * measured.largest_kept_bytes)
    pixels = facts.channels * spec.data.image_size**2
    count = None if facts.train_images is None else facts.train_images + (facts.test_images or 0)
    stays_on_disk = spec.data.dataset in OF_FILES and spec.data.workers_per_rank > 0
    return MemoryEstimate(
        weights=parameters + (HALF_BYTES * measured.parameters if half else 0),
        gradients=FP32_BYTES * measured.learning,
        optimizer=_slots(spec) * FP32_BYTES * measured.learning,
        average=parameters if spec.train.ema else 0,
        activations=kept // 2 if half else kept,
        images=0 if stays_on_disk else None if count is None else count * pixels,
    )


def _slots(spec: ExperimentSpec) -> int:
    """Numbers that the optimiser remembers for each parameter."""
    optimizer = spec.train.optimizer
    if isinstance(optimizer, SGDSpec):
        return 1 if optimizer.momentum else 0
    if isinstance(optimizer, TimmOptimizerSpec):
        return optimizer.facts.slots
    return 2
