"""The training of one network, on one rank, in four verbs: resume, train_step, evaluate, save."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cbam_core import fused
from cbam_core.errors import LossNotFinite
from cbam_core.networks import build_network, published_normalisation
from cbam_core.normalisation import Normalisation
from workers.data import Dataset
from workers.data.batches import Batches, RankShard
from workers.data.datasets.identity import check_same_data
from workers.protocol.assignment import Assignment
from workers.protocol.fence import Fence
from workers.protocol.progress import Phase, Progress
from workers.protocol.stop import StopMode, StopSignal
from workers.seeding import seed_generators, seed_of
from workers.tracking.tracker import Tracker
from workers.train.checkpoint import Checkpoints
from workers.train.compiler import forget_other_code
from workers.train.distributed import ProcessGroup
from workers.train.evaluate import Evaluation, evaluate
from workers.train.learner import Learner
from workers.train.optimizer import learning_rate
from workers.train.run_ahead import PendingLoss, RunAhead, copy_to_host
from workers.train.throughput import Throughput

logger = logging.getLogger(__name__)
CURVE_POINTS = 2000  # values per training curve, at most: a plot shows no more, and MLflow has to hold them
_STOP_FLAGS: dict[StopMode | None, int] = {None: 0, "pause": 1, "cancel": 2}


class Trainer:
    """One rank's training. All that decides the result is (spec, step): a resumed run repeats an unbroken one.

    `step` counts finished optimiser steps; `epochs_evaluated` the epochs whose evaluation is done.
    """

    def __init__(
        self,
        assignment: Assignment,
        gang: ProcessGroup,
        dataset: Dataset,
        *,
        tracker: Tracker,
        report: Callable[[Progress], None],
        stop: StopSignal,
    ) -> None:
        self.spec = assignment.spec
        self.recipe = assignment.spec.train
        self.gang, self.dataset, self.tracker = gang, dataset, tracker
        self._report, self._stop = report, stop
        self.checkpoints = Checkpoints(assignment.folder.checkpoints, self.spec.checkpoint)
        self._fence = Fence(assignment)

        torch.manual_seed(seed_of(self.recipe.seed, "weights"))
        channels = dataset.input_shape[0]
        network = build_network(self.spec.model, dataset.num_classes, channels)
        self._choose_kernels(network)
        share = RankShard(gang.rank, gang.world_size, self.recipe.global_batch_size)
        if self.recipe.compile:
            forget_other_code(self._compiled_for(share))
        self.learner = Learner(self.recipe, network, gang)
        self.batches = Batches(
            dataset,
            share,
            seed=self.recipe.seed,
            augment=self.spec.data.augment,
            device=gang.device,
            loaders=self.spec.data.workers_per_rank,
        )
        self._normalise_by(published_normalisation(self.spec.model, channels) or dataset.normalisation)
        self.total_steps = self.recipe.epochs * self.batches.steps_per_epoch
        self.log_every = math.ceil(self.total_steps / CURVE_POINTS)
        self.pace = Throughput(self.recipe.global_batch_size)

        self.step = 0
        self.epochs_evaluated = 0
        self.evaluation: Evaluation | None = None
        self.resumed_from: int | None = None
        self.metrics: dict[str, float] = {}
        self._loss_sum = torch.zeros((), device=gang.device)
        self._pending: PendingLoss | None = None
        self._run_ahead = RunAhead(gang.device)
        self._saved_step = -1
        self._agreed: StopMode | None = None

    def fit(self) -> StopMode | None:
        """Train to the end and return None, or to the step at which the gang agrees to stop, and return how."""
        self.resume()
        self.learner.network.train()
        if self.recipe.deterministic and self.gang.world_size > 2:
            batch_size = self.recipe.global_batch_size // self.gang.world_size
            self.learner.rehearse(self.dataset.input_shape, batch_size=batch_size)
        with contextlib.closing(self.batches), contextlib.closing(self.batches.train_from(self.step)) as batches:
            while not self.done:
                if self.stop_agreed():
                    self._finish_steps()
                    self.say("stopping")
                    if self._agreed == "pause":
                        self.save()
                    break
                if self.epochs_trained > self.epochs_evaluated:
                    self.evaluate()
                else:
                    self.train_step(batches)
                if self._checkpoint_may_be_due():
                    self.save(only_if_due=True)
        self.gang.settle()
        return self._agreed

    @property
    def done(self) -> bool:
        """Whether the last epoch is trained and evaluated."""
        return self.epochs_evaluated == self.recipe.epochs

    @property
    def epochs_trained(self) -> int:
        """Full passes over the training set."""
        return self.step // self.batches.steps_per_epoch

    def resume(self) -> None:
        """Go to the newest undamaged checkpoint, if there is one; rank 0 says which."""
        newest = self.checkpoints.newest() if self.gang.leads else None
        step = self.gang.from_leader(-1 if newest is None else newest)
        if step < 0:
            return
        state = self.checkpoints.load(step)
        check_same_data(state.get("data"), self.dataset.identity)
        self.learner.load(state["learner"])
        self.step = self.resumed_from = self._saved_step = state["step"]
        self.epochs_evaluated = state["epochs_evaluated"]
        self.metrics = state["metrics"]
        self._normalise_as_saved(state)
        losses = state["losses"]
        self._loss_sum.copy_(losses[self.gang.rank] if len(losses) == self.gang.world_size else losses.mean())
        if state["evaluation"]:
            self.evaluation = Evaluation(**state["evaluation"])
        logger.info("resumed from the checkpoint of step %d of %d", self.step, self.total_steps)

    def train_step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """Enqueue one optimiser step on this rank's share of the next global batch, and log the loss before it.

        So a GPU is never waited for with an empty queue. A loss that is not finite is found one step late.
        """
        started = time.perf_counter()
        images, targets = next(batches)
        waited = time.perf_counter() - started
        seed_generators(seed_of(self.recipe.seed, "step", self.step, self.gang.rank), self.gang.device)
        rate = self._learning_rate()
        self._loss_sum += self.learner.learn(images, targets, rate=rate, step=self.step)
        self.step += 1
        before, self._pending = self._pending, self._mean_loss(rate)
        finished = self._run_ahead.enqueued()
        self._log_loss(before)
        if not self.pace.begun:
            self._run_ahead.finish()  # what it has still to do of the first step is not the second's
        self.pace.step_took(time.perf_counter() - started, waited, finished)
        self.say("training")

    def evaluate(self) -> None:
        """Evaluate on all test images, unless the gang agrees to stop meanwhile."""
        self._finish_steps()
        self.say("evaluating")
        started = time.perf_counter()
        with self.learner.predicting() as predict:
            evaluation = evaluate(
                predict,
                self.batches.test(),
                self.gang,
                num_classes=self.dataset.num_classes,
                stop=self._stop_while_evaluating,
            )
        if evaluation is None:
            return
        if not math.isfinite(evaluation.loss):
            where = f"the loss on the test images is {evaluation.loss} after step {self.step}"
            raise LossNotFinite(f"{where}; {self._advice}")
        self.pace.evaluation_took(time.perf_counter() - started)
        self.evaluation = evaluation
        self.epochs_evaluated = self.epochs_trained
        self.metrics = self.metrics | evaluation.metrics()
        self.tracker.log(self.step, evaluation.metrics() | {"epoch": self.epochs_trained})
        logger.info(
            "epoch %d/%d  step %d  train/loss %.4f  val/loss %.4f  val/top1 %.4f  %.0f images/s",
            self.epochs_trained,
            self.recipe.epochs,
            self.step,
            self.metrics.get("train/loss", math.nan),
            evaluation.loss,
            evaluation.top1,
            self.pace.images_per_second or math.nan,
        )
        self.say("evaluating")

    def save(self, *, only_if_due: bool = False) -> None:
        """Write the checkpoint of this step. All ranks call it: rank 0 writes, and the others go on meanwhile.

        Raises LossNotFinite instead of writing weights that are not finite, which every later attempt would begin with.
        """
        self._finish_steps()
        losses = self.gang.gather(self._loss_sum)
        if not self.gang.leads or self.step == self._saved_step or (only_if_due and not self._checkpoint_is_due()):
            return
        if not self.learner.is_finite():
            raise LossNotFinite(f"the weights are not finite after step {self.step}; {self._advice}")
        evaluated = self.evaluation if self._evaluated_now else None
        state: dict[str, Any] = {
            "step": self.step,
            "epochs_evaluated": self.epochs_evaluated,
            "learner": self.learner.state(),
            "losses": losses,
            "metrics": self.metrics,
            "evaluation": vars(self.evaluation) if self.evaluation else None,
            "normalisation": vars(self.normalisation),
            "data": self.dataset.identity,
        }
        self._fence.check()
        self.tracker.sync()  # the values before this step are not measured again by whoever goes on from it
        self.checkpoints.save(self.step, state, evaluated.metrics() if evaluated else {})
        self._saved_step = self.step

    def stop_agreed(self) -> StopMode | None:
        """How all ranks stop, once any of them was asked to; every rank learns it at the same step."""
        if self._agreed is None:
            flag = self.gang.agree(_STOP_FLAGS[self._stop.mode])
            self._agreed = next(mode for mode, number in _STOP_FLAGS.items() if number == flag)
        return self._agreed

    def say(self, phase: Phase) -> None:
        """Report where the training is."""
        test_steps = math.ceil(len(self.dataset.test) / self.recipe.global_batch_size)
        self._report(
            Progress(
                phase=phase,
                step=self.step,
                total_steps=self.total_steps,
                epoch=self.epochs_trained,
                epochs=self.recipe.epochs,
                images_per_second=self.pace.images_per_second,
                eta_seconds=self.pace.eta_seconds(
                    self.total_steps - self.step, self.recipe.epochs - self.epochs_evaluated, test_steps
                ),
                metrics=self.metrics,
                heartbeat=time.time(),
                mlflow_run_id=self.tracker.run_id,
            )
        )

    def _choose_kernels(self, network: nn.Module) -> None:
        """Log which kernels end the residual blocks. Raises SpecError where `train.fused` is `on` and cannot be."""
        reason = fused.configure(network, self.recipe.fused, self.gang.device, channels_last=self.recipe.channels_last)
        if self.spec.model.attention.type == "cbam":
            logger.info(
                "CBAM's residual tails: %s", "fused kernels" if reason is None else f"plain modules, as {reason}"
            )

    def _normalise_by(self, normalisation: Normalisation) -> None:
        self.normalisation = normalisation
        self.batches.normalise_by(normalisation)

    def _normalise_as_saved(self, state: dict[str, Any]) -> None:
        """The images stay what the weights have learnt from.

        An old checkpoint does not say: whatever the weights were, the images had the dataset's statistics then.
        """
        saved = state.get("normalisation")
        if saved is None and self.spec.model.pretrained:
            logger.info(
                "the images are normalised by the dataset's own mean and deviation, as when this training began"
            )
        self._normalise_by(Normalisation(**saved) if saved else self.dataset.normalisation)

    def _finish_steps(self) -> None:
        """Wait for the steps that the device still has to do, count the time as theirs, and log the last one's loss.

        Raises LossNotFinite, on all ranks alike.
        """
        started = time.perf_counter()
        finished = self._run_ahead.finish()
        self.pace.steps_took_longer(time.perf_counter() - started, finished)
        pending, self._pending = self._pending, None
        self._log_loss(pending)

    def _stop_while_evaluating(self) -> StopMode | None:
        """Also a sign of life: an evaluation may take longer than a step may."""
        self.say("evaluating")
        return self.stop_agreed()

    def _checkpoint_may_be_due(self) -> bool:
        """The same answer on every rank."""
        if self.epochs_trained > self.epochs_evaluated:
            return False  # the evaluation comes first: it may show that this is one of the best
        every = self.spec.checkpoint.every_steps
        return self._evaluated_now or (every is not None and self.step % every == 0)

    def _checkpoint_is_due(self) -> bool:
        """For rank 0 alone, where `_checkpoint_may_be_due`: it looks at the checkpoints there are."""
        every = self.spec.checkpoint.every_steps
        at_its_step = every is None or self.step % every == 0
        return self.done or at_its_step or self.checkpoints.is_among_best(self.metrics)

    def _compiled_for(self, share: RankShard) -> tuple[object, ...]:
        """What decides the code that torch.compile makes of the network."""
        fields = {"precision", "channels_last", "accumulate", "sync_batch_norm", "deterministic", "fused"}
        recipe = self.recipe.model_dump(mode="json", include=fields)
        model, dataset = self.spec.model.model_dump_json(), self.dataset
        return model, dataset.num_classes, dataset.input_shape, share, *recipe.values(), self.gang.device

    @property
    def _evaluated_now(self) -> bool:
        return self.step == self.epochs_evaluated * self.batches.steps_per_epoch

    @property
    def _advice(self) -> str:
        saved = f"the last good checkpoint is of step {self._saved_step}" if self._saved_step > 0 else "no checkpoint"
        return f"{saved}. Try a lower lr or a longer warm-up"

    def _learning_rate(self) -> float:
        return learning_rate(
            self.recipe.schedule,
            self.recipe.optimizer.lr,
            self.step,
            steps_per_epoch=self.batches.steps_per_epoch,
            epochs=self.recipe.epochs,
        )

    def _mean_loss(self, rate: float) -> PendingLoss | None:
        """Enqueue the mean loss over the gang since it was last logged; None at a step that is not to be logged."""
        if self.step % self.log_every and self.step != self.total_steps:
            return None
        steps = (self.step - 1) % self.log_every + 1
        mean = self.gang.sum(self._loss_sum.clone()) / (steps * self.gang.world_size)
        self._loss_sum.zero_()
        return PendingLoss(self.step, steps, copy_to_host(mean), {"lr": rate} | self.pace.metrics())

    def _log_loss(self, pending: PendingLoss | None) -> None:
        """Log a loss that the device has computed. Raises LossNotFinite, on all ranks alike."""
        if pending is None:
            return
        loss = pending.value.item()
        if not math.isfinite(loss):
            raise LossNotFinite(f"the loss became {loss} {pending.where}; {self._advice}")
        self.metrics = self.metrics | {"train/loss": loss, "lr": pending.metrics["lr"]}
        self.tracker.log(pending.step, {"train/loss": loss} | pending.metrics)
