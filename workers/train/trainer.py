"""The training of one network, on one rank, in four verbs: resume, train_step, evaluate, save."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from cbam_core.errors import CheckpointError, LossNotFinite
from cbam_core.image_folders.layout import PartName
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
from workers.train.assessment import AssessedName, Evaluator
from workers.train.checkpoint import Checkpoints
from workers.train.distributed import ProcessGroup
from workers.train.evaluate import Evaluation
from workers.train.learner import Learner
from workers.train.loss import class_weights
from workers.train.network import make_network
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

        share = RankShard(gang.rank, gang.world_size, self.recipe.global_batch_size)
        self.first = make_network(assignment, dataset, gang, share)
        weights = class_weights(self.recipe, dataset.train.labels, dataset.num_classes)
        self.learner = Learner(self.recipe, self.first.network, gang, class_weights=weights)
        self.batches = Batches(
            dataset,
            share,
            seed=self.recipe.seed_of("data"),
            augment_seed=self.recipe.seed_of("augment"),
            augment=self.spec.data.augment,
            device=gang.device,
            loaders=self.spec.data.workers_per_rank,
        )
        self.evaluator = Evaluator(dataset, self.batches, gang, stop=self._stop_while_evaluating)
        self._normalise_by(self.first.normalisation)
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
        self.learner.begin()
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
        if self._agreed is None:
            with contextlib.closing(self.batches):
                self.assess()
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
        seed_generators(seed_of(self.recipe.seed_of("augment"), "step", self.step, self.gang.rank), self.gang.device)
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
        """Evaluate on val, unless the gang agrees to stop meanwhile."""
        self._finish_steps()
        self.say("evaluating")
        started = time.perf_counter()
        with self.learner.predicting() as predict:
            last = self.epochs_trained == self.recipe.epochs
            evaluation = self._evaluate("val", predict, keep_as="val" if last else None)
        if evaluation is None:
            return
        self.pace.evaluation_took(time.perf_counter() - started)
        self.evaluation = evaluation
        self.epochs_evaluated = self.epochs_trained
        metrics = evaluation.metrics("val")
        self.metrics = self.metrics | metrics
        self.tracker.log(self.step, metrics | {"epoch": self.epochs_trained})
        logger.info(
            "epoch %d/%d  step %d%s  val/loss %.4f  val/top1 %.4f%s",
            self.epochs_trained,
            self.recipe.epochs,
            self.step,
            _if_known("  train/loss %.4f", self.metrics.get("train/loss")),
            evaluation.loss,
            evaluation.top1,
            _if_known("  %.0f images/s", self.pace.images_per_second),
        )
        self.say("evaluating")

    def assess(self) -> None:
        """Once trained: evaluate the final weights on test, and those of the best checkpoint, where they are others.

        Every prediction is kept, of val too. Nothing else reads the test images. Left off where the gang agrees to
        stop; whoever goes on begins it anew.
        """
        with self.learner.predicting() as predict:
            if "val" not in self.evaluator.kept and self._evaluate("val", predict, keep_as="val") is None:
                return
            self.batches.close()  # the processes that read val make room for those that read test
            if self.dataset.test is None or not self._assess_on_test("test", predict):
                return
        best = self.gang.from_leader(self.checkpoints.best() if self.gang.leads else -1)
        if best not in (-1, self.step) and (state := self._state_of(best)) is not None:
            with self.learner.predicting_as(state["learner"]) as predict:
                self._assess_on_test("test_best", predict)

    def _state_of(self, step: int) -> dict[str, Any] | None:
        """The state in a checkpoint; None, on all ranks, where any of them cannot read it: the training is done."""
        state = None
        try:
            state = self.checkpoints.load(step)
        except CheckpointError as error:
            logger.warning("the best checkpoint is not evaluated on test: %s", error)
        unread = self.gang.sum(torch.tensor(float(state is None), device=self.gang.device))
        return None if unread else state

    def _assess_on_test(self, name: Literal["test", "test_best"], predict: Callable[[Tensor], Tensor]) -> bool:
        """Evaluate on test and log as `name` what is finite; whether that was not left off."""
        self.say("evaluating")
        evaluation = self.evaluator.evaluate("test", predict, keep_as=name)
        if evaluation is None:
            return False
        metrics = {key: value for key, value in evaluation.metrics(name).items() if math.isfinite(value)}
        if len(metrics) < len(evaluation.metrics(name)):
            logger.warning("%s/loss is %s: some test image has no finite score", name, evaluation.loss)
        self.metrics = self.metrics | metrics
        self.tracker.log(self.step, metrics)
        logger.info("%s/loss %.4f  %s/top1 %.4f", name, evaluation.loss, name, evaluation.top1)
        self.say("evaluating")
        return True

    def _evaluate(
        self, part: PartName, predict: Callable[[Tensor], Tensor], *, keep_as: AssessedName | None = None
    ) -> Evaluation | None:
        """One pass over a part; None where the gang agrees to stop meanwhile. Raises LossNotFinite."""
        evaluation = self.evaluator.evaluate(part, predict, keep_as=keep_as)
        if evaluation is not None and not math.isfinite(evaluation.loss):
            where = f"the loss on the {part} images is {evaluation.loss} after step {self.step}"
            raise LossNotFinite(f"{where}; {self._advice}")
        return evaluation

    def save(self, *, only_if_due: bool = False) -> None:
        """Write the checkpoint of this step. All ranks call it: rank 0 writes, and the others go on meanwhile.

        Raises LossNotFinite instead of writing weights that are not finite, which every later attempt would begin with.
        """
        self._finish_steps()
        losses = self.gang.gather(self._loss_sum)
        if not self.gang.leads:
            return
        evaluated = self.evaluation.metrics("val") if self.evaluation and self._evaluated_now else {}
        if self.step == self._saved_step:
            self.checkpoints.note(self.step, evaluated)
            return
        if only_if_due and not self._checkpoint_is_due():
            return
        if not self.learner.is_finite():
            raise LossNotFinite(f"the weights are not finite after step {self.step}; {self._advice}")
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
        self.checkpoints.save(self.step, state, evaluated)
        self._saved_step = self.step

    def stop_agreed(self) -> StopMode | None:
        """How all ranks stop, once any of them was asked to; every rank learns it at the same step."""
        if self._agreed is None:
            flag = self.gang.agree(_STOP_FLAGS[self._stop.mode])
            self._agreed = next(mode for mode, number in _STOP_FLAGS.items() if number == flag)
        return self._agreed

    def say(self, phase: Phase) -> None:
        """Report where the training is."""
        val_steps, test_steps = (
            math.ceil(len(images or ()) / self.recipe.global_batch_size)
            for images in (self.dataset.val, self.dataset.test)
        )
        passes_left: float = self.recipe.epochs - self.epochs_evaluated
        if "test" not in self.evaluator.kept:
            passes_left += test_steps / val_steps
        self._report(
            Progress(
                phase=phase,
                step=self.step,
                total_steps=self.total_steps,
                epoch=self.epochs_trained,
                epochs=self.recipe.epochs,
                images_per_second=self.pace.images_per_second,
                eta_seconds=self.pace.eta_seconds(self.total_steps - self.step, passes_left, val_steps),
                metrics=self.metrics,
                heartbeat=time.time(),
                mlflow_run_id=self.tracker.run_id,
                mlflow_experiment_id=self.tracker.project_id,
            )
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


def _if_known(form: str, value: float | None) -> str:
    """A number for the log; nothing where it is not known yet, as the speed after a single step is not."""
    return "" if value is None else form % value
