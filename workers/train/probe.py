"""What a variant costs against the control: real training steps of both, in turns, on the same devices.

Both networks are built as for a training, and make steps of their own recipe on one batch that stays on the device:
reading and augmenting images are left out, as they are the machine's and not the network's. The learning rate is next
to nothing, so that every step does the same work: weights that learn one batch by heart end in numbers that CPUs are
slow at. What the machine does meanwhile (a clock that falls, a neighbour) meets both alike, as they take turns; the
round, and not the step, is the replicate: see `service/comparisons/statistics/cost.py`.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from cbam_core.networks import published_normalisation
from workers.data import Dataset
from workers.data.batches import Batches, RankShard
from workers.protocol.assignment import Assignment
from workers.protocol.probe import ROUNDS, Probe, ProbeNumbers, probe_order
from workers.protocol.progress import Progress
from workers.protocol.stop import StopMode, StopSignal
from workers.seeding import seed_generators, seed_of
from workers.train.compiler import forget_other_code
from workers.train.distributed import ProcessGroup
from workers.train.learner import Learner
from workers.train.loss import class_weights
from workers.train.network import make_network
from workers.train.utilization import peak_memory_bytes, reset_peak_memory, synchronize

logger = logging.getLogger(__name__)
PARTS = 9  # of a measurement, at most; odd, so that the logarithm of their median is the median of their logarithms
FEWEST_PARTS = 3
WARM_UP_STEPS = 3  # the first chooses kernels, compiles, finds memory
SETTLING_STEPS = 2  # behind a change of turns: the caches hold the other network
NEXT_TO_NOTHING = 1e-6  # of the recipe's learning rate
_STOPS: tuple[StopMode | None, ...] = (None, "pause", "cancel")


class CostProbe:
    """One rank's share of a probe. `step` counts measurements that are done; a probe that is left off begins anew."""

    def __init__(
        self,
        assignment: Assignment,
        gang: ProcessGroup,
        dataset: Dataset,
        *,
        report: Callable[[Progress], None],
        stop: StopSignal,
    ) -> None:
        assert assignment.probe is not None, "this is no probe"
        self.gang = gang
        self.step = 0
        self._probe: Probe = assignment.probe
        self._batch_size = assignment.spec.train.global_batch_size
        self._report, self._stop = report, stop
        self._control = replace(assignment, spec=assignment.probe.control)
        self._variant, self._dataset = assignment, dataset
        self._speed: float | None = None
        self._on_gpu = gang.device.type == "cuda"

    def measure(self) -> ProbeNumbers | StopMode:
        """Both in turns, 8 rounds; how the gang agrees to stop, where it was asked to before the last one."""
        self._say()
        with _apart(self._control, self._variant):
            return self._in_turns()

    def _in_turns(self) -> ProbeNumbers | StopMode:
        both = {"c": self._contender(self._control), "v": self._contender(self._variant)}
        for contender in both.values():  # once both are built: to build one may forget the other's compiled code
            self._warm_up(contender)
        speeds: dict[str, list[float]] = {"c": [], "v": []}
        for who in probe_order():
            if (mode := self._stop_agreed()) is not None:
                return mode
            speeds[who].append(self._measured(both[who]))
            self.step += 1
            self._say()
        logger.info("images/s of the control: %s", "  ".join(f"{speed:.4g}" for speed in speeds["c"]))
        logger.info("images/s of the variant: %s", "  ".join(f"{speed:.4g}" for speed in speeds["v"]))
        memory = (both["c"].peak, both["v"].peak) if self._on_gpu else None
        return ProbeNumbers(tuple(speeds["c"]), tuple(speeds["v"]), memory)

    def _contender(self, assignment: Assignment) -> "_Contender":
        before = _allocated(self.gang.device)
        contender = _Contender(*_ready(assignment, self.gang, self._dataset))
        contender.resident = _allocated(self.gang.device) - before
        return contender

    def _warm_up(self, contender: "_Contender") -> None:
        """The first steps, by which it is known how many fit into a measurement."""
        before = _allocated(self.gang.device)
        for _ in range(WARM_UP_STEPS - 1):
            contender.learn()
            self._finish()
        started = time.perf_counter()
        contender.learn()
        self._finish()
        parts, steps = _plan(self._probe.seconds, time.perf_counter() - started)
        # Every rank makes as many steps as rank 0 finds right: they meet at each.
        contender.parts, contender.steps = self.gang.from_leader(parts), self.gang.from_leader(steps)
        contender.resident += _allocated(self.gang.device) - before

    def _measured(self, contender: "_Contender") -> float:
        """Images/s of one measurement: the median of its parts."""
        for _ in range(SETTLING_STEPS):
            contender.learn()
        self._finish()
        others = _allocated(self.gang.device) - contender.resident
        if self._on_gpu:
            reset_peak_memory(self.gang.device)
        speeds = []
        for _ in range(contender.parts):
            started = time.perf_counter()
            for _ in range(contender.steps):
                contender.learn()
            synchronize(self.gang.device)
            speeds.append(contender.steps * self._batch_size / (time.perf_counter() - started))
            self._say()
        if self._on_gpu:
            contender.peak = max(contender.peak, peak_memory_bytes(self.gang.device) - others)
        self._speed = median(speeds)
        return self._speed

    def _finish(self) -> None:
        synchronize(self.gang.device)
        self._say()

    def _stop_agreed(self) -> StopMode | None:
        """How all ranks stop, once any of them was asked to; each learns it before the same measurement."""
        mine = torch.tensor(float(_STOPS.index(self._stop.mode)), device=self.gang.device)
        return _STOPS[int(self.gang.gather(mine).max())]

    def _say(self) -> None:
        self._report(
            Progress(
                phase="training" if self.step else "starting",
                step=self.step,
                total_steps=2 * ROUNDS,
                images_per_second=self._speed,
                eta_seconds=(2 * ROUNDS - self.step) * self._probe.seconds,
                heartbeat=time.time(),
            )
        )


@dataclass(eq=False)
class _Contender:
    """One of the two: what makes its steps, and how many of them are a part of a measurement."""

    learner: Learner
    images: Tensor
    targets: Tensor
    rate: float
    parts: int = FEWEST_PARTS
    steps: int = 1
    resident: int = 0
    """Bytes on the GPU between two steps."""
    peak: int = 0
    """Bytes on the GPU, at most."""
    done: int = 0

    def learn(self) -> None:
        """Enqueue one optimiser step."""
        self.learner.learn(self.images, self.targets, rate=self.rate, step=self.done)
        self.done += 1


@contextlib.contextmanager
def _apart(*assignments: Assignment) -> Iterator[None]:
    """While open, code that is compiled for one network leaves the other's alone, and fits its very shapes.

    Dynamo would take two networks of one class for one network whose shapes vary, and compile the second for any.
    """
    if not any(assignment.spec.train.compile for assignment in assignments):
        yield
        return
    import torch._dynamo

    with torch._dynamo.config.patch(automatic_dynamic_shapes=False, recompile_limit=64):
        yield
    forget_other_code("of a probe")


def _ready(assignment: Assignment, gang: ProcessGroup, dataset: Dataset) -> tuple[Learner, Tensor, Tensor, float]:
    """A learner, this rank's share of the first batch as its recipe augments it, and the learning rate."""
    recipe = assignment.spec.train
    share = RankShard(gang.rank, gang.world_size, recipe.global_batch_size)
    network = make_network(assignment, dataset, gang, share).network
    weights = class_weights(recipe, dataset.train.labels, dataset.num_classes)
    learner = Learner(recipe, network, gang, class_weights=weights)
    learner.network.train()
    seed_generators(seed_of(recipe.seed_of("augment"), "step", 0, gang.rank), gang.device)
    with _first_batch(assignment, gang, dataset, share) as (images, targets):
        return learner, images, targets, NEXT_TO_NOTHING * recipe.optimizer.lr


@contextlib.contextmanager
def _first_batch(
    assignment: Assignment, gang: ProcessGroup, dataset: Dataset, share: RankShard
) -> Iterator[tuple[Tensor, Tensor]]:
    spec, recipe = assignment.spec, assignment.spec.train
    batches = Batches(
        dataset,
        share,
        seed=recipe.seed_of("data"),
        augment_seed=recipe.seed_of("augment"),
        augment=spec.data.augment,
        device=gang.device,
        loaders=spec.data.workers_per_rank,
    )
    batches.normalise_by(published_normalisation(spec.model, dataset.input_shape[0]) or dataset.normalisation)
    with contextlib.closing(batches), contextlib.closing(batches.train_from(0)) as source:
        yield next(source)


def _plan(seconds: float, step_seconds: float) -> tuple[int, int]:
    """Parts of a measurement that is to take so long, an odd number, and the steps of each."""
    fitting = seconds / max(step_seconds, 1e-6)
    parts = min(PARTS, max(FEWEST_PARTS, int(fitting)))
    parts -= 1 - parts % 2
    return parts, max(1, math.floor(fitting / parts))


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
