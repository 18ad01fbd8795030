"""One attempt on one rank, from the first log line to the result on shared storage."""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from cbam_core.errors import DataError, Stalled, Superseded
from cbam_core.explain import Description, describe
from cbam_core.image_folders.layout import PartName
from cbam_core.networks import build_network
from cbam_core.semantics import EARLIEST, Semantics
from cbam_core.spec import ExperimentSpec, ModelSpec
from workers.data import Dataset, load_dataset
from workers.data.datasets.folder_parts import groups_of
from workers.export.predictions import PredictionRows
from workers.export.requirements import require, require_compiler
from workers.export.weights import Trained, export
from workers.protocol.assignment import Assignment
from workers.protocol.fence import Fence, require_open
from workers.protocol.outcome import Ending, Outcome, classify
from workers.protocol.probe import Probe, ProbeNumbers
from workers.protocol.progress import Progress, hang_timeout_seconds
from workers.protocol.stop import StopMode, StopSignal
from workers.protocol.storage import write_once
from workers.runtime.rank_log import RankLog, log_to
from workers.runtime.watchdog import watched
from workers.seeding import reproducible
from workers.tracing import FirstStep, event
from workers.tracking.journal_tracker import JournalTracker
from workers.tracking.mlflow_tracker import MlflowTracker
from workers.tracking.provenance import code_version
from workers.tracking.tracker import Tracker
from workers.train.distributed import ProcessGroup, gang_of
from workers.train.evaluate import Evaluation
from workers.train.probe import CostProbe
from workers.train.trainer import Trainer
from workers.train.utilization import model_flops_utilisation, peak_flops, peak_memory_bytes

logger = logging.getLogger(__name__)
_ENDINGS: dict[StopMode | None, Ending] = {None: "succeeded", "pause": "paused", "cancel": "cancelled"}
_LAST_LINES = 15
_STALLED = "no step for {:.0f} s; what every thread was doing is in the log of each rank"
_OUT_OF_MEMORY_HINT = (
    "Raise train.accumulate or resources.workers, lower train.global_batch_size, or set train.precision to bf16; "
    "data.workers_per_rank of 1 or more keeps the images off the device (those of an imagefolder on disk)."
)


class _LastProgress:
    """Passes progress on and remembers the last one, so that an outcome can say how far the attempt came.

    A report is also where an attempt that has been superseded learns of it: Superseded ends it.
    """

    def __init__(self, report: Callable[[Progress], None], fence: Fence, first_step: FirstStep) -> None:
        self._report, self._fence, self._first_step = report, fence, first_step
        self.last = Progress()
        self.facts: dict[str, Any] = {}  # what is known of the training before its first step

    def __call__(self, progress: Progress) -> None:
        if progress.phase != "ended":
            self._fence.check_now_and_then()
        self.last = progress
        self._report(progress)
        if progress.phase == "training":
            self._first_step.end()


def run(assignment: Assignment, *, stop: StopSignal, report: Callable[[Progress], None]) -> Outcome:
    """Run this rank's share of an attempt in the calling thread, and say how it ended; raises nothing of the training.

    A failure is recorded before the gang is left, so that peers, which only see this rank go, cannot claim the cause.
    Every other ending is rank 0's to record, once all is exported and tracked; the other ranks just return it. An
    attempt at what is deleted or pruned does not begin, and leaves nothing.
    """
    if (closed := _closed(assignment)) is not None:
        return closed
    attempt = assignment.folder.attempt(assignment.attempt)
    fence, first_step = Fence(assignment), FirstStep(assignment)
    progress = _LastProgress(report, fence, first_step)
    with log_to(attempt.log(assignment.rank)) as log:

        def give_up(seconds: float) -> None:
            with contextlib.suppress(OSError):  # no room for it: whoever stalls ends all the same
                _failed(assignment, Stalled(_STALLED.format(seconds)), log, progress).record(attempt)

        tracker = Tracker()
        with contextlib.ExitStack() as stack, first_step.current():
            try:
                if assignment.rank == 0:
                    fence.take()
                progress(Progress(phase="starting", heartbeat=time.time()))
                tracker = _tracker(assignment)
                outcome = _train(assignment, stack, stop, report=progress, tracker=tracker, give_up=give_up)
            except Exception as error:
                outcome = _failed(assignment, error, log, progress)
                with contextlib.suppress(OSError):  # no room for it: what is returned is the only record
                    outcome = outcome.record(attempt)
        first_step.end(error=outcome.reason or "")
        tracked = tracker.close(outcome)
        if assignment.rank == 0 and outcome.outcome != "failed":
            outcome = replace(outcome, **_run_of(tracker), tracked=tracked).record(attempt)
        progress(replace(progress.last, phase="ended", eta_seconds=None, heartbeat=time.time(), **_run_of(tracker)))
        logger.info("%s%s", outcome.outcome, f" ({outcome.reason})" if outcome.reason else "")
    return outcome


def _closed(assignment: Assignment) -> Outcome | None:
    """How it ends where the experiment is deleted or pruned. Storage that does not answer is the log's to tell."""
    try:
        with contextlib.suppress(OSError):
            require_open(assignment.folder)
    except Superseded as error:
        return Outcome(
            "failed",
            classify(error),
            str(error),
            rank=assignment.rank,
            attempt=assignment.attempt,
            token=assignment.token,
        )
    return None


def _train(
    assignment: Assignment,
    stack: contextlib.ExitStack,
    stop: StopSignal,
    *,
    report: _LastProgress,
    tracker: Tracker,
    give_up: Callable[[float], None],
) -> Outcome:
    """Meet the gang (left when `stack` closes), train, export."""
    started, spec = time.perf_counter(), assignment.spec
    torch.set_num_threads(spec.resources.cpus_per_worker)
    stack.enter_context(reproducible(spec.train.deterministic))
    gang = stack.enter_context(gang_of(assignment))
    event("the gang has met")
    made_by = _made_by(gang)
    _require(spec, gang, assignment.probe)
    dataset = _load(assignment, gang)
    event("the data is loaded")
    cost = _cost(spec.model, dataset.num_classes, dataset.input_shape, assignment.semantics)
    if assignment.probe is not None:
        report.facts = _facts(cost, dataset) | made_by
        return _measure(assignment, gang, dataset, stop=stop, report=report, give_up=give_up)
    trainer = Trainer(assignment, gang, dataset, tracker=tracker, report=report, stop=stop)
    event("the network is built")
    started_from = _started_from(trainer)
    report.facts = _facts(cost, dataset) | made_by | started_from
    tags = {"parameters": cost.parameters, "macs": cost.macs, "weights": started_from.get("weights_sha256")}
    _announce(assignment, trainer, tracker, made_by | {name: tag for name, tag in tags.items() if tag is not None})
    with _watched(assignment, report, give_up):
        mode = trainer.fit()
    if mode is None and gang.leads:
        Fence(assignment).check()
        export(_trained(trainer, assignment.semantics), assignment.folder)
    return Outcome(
        outcome=_ENDINGS[mode],
        step=trainer.step,
        metrics=trainer.metrics,
        rank=assignment.rank,
        attempt=assignment.attempt,
        token=assignment.token,
        summary=report.facts | _summary(trainer, cost.macs, time.perf_counter() - started),
    )


def _measure(
    assignment: Assignment,
    gang: ProcessGroup,
    dataset: Dataset,
    *,
    stop: StopSignal,
    report: _LastProgress,
    give_up: Callable[[float], None],
) -> Outcome:
    """Measure what the spec costs against its control. What is left off leaves nothing, and begins anew."""
    started = time.perf_counter()
    probe = CostProbe(assignment, gang, dataset, report=report, stop=stop)
    logger.info("%s: a probe of cost, attempt %d, on %s", assignment.spec.name, assignment.attempt, gang.device)
    with _watched(assignment, report, give_up):
        measured = probe.measure()
    if not isinstance(measured, ProbeNumbers):
        return _ended(assignment, _ENDINGS[measured])
    if gang.leads:
        Fence(assignment).check()
    summary = {"probe": measured.to_dict(), "wall_seconds": time.perf_counter() - started}
    return replace(_ended(assignment, "succeeded"), step=probe.step, summary=report.facts | summary)


def _ended(assignment: Assignment, ending: Ending) -> Outcome:
    return Outcome(ending, rank=assignment.rank, attempt=assignment.attempt, token=assignment.token)


def _made_by(gang: ProcessGroup) -> dict[str, Any]:
    """What two runs must have alike, beside their specs, for a difference between them to be that of their networks."""
    return {
        "device": gang.devices(),
        "world_size": gang.world_size,
        "torch": str(torch.__version__),
        "code": code_version(),
    }


def _started_from(trainer: Trainer) -> dict[str, Any]:
    """Which weights file the training started from, where it did, and what of it was loaded."""
    report = trainer.first.weights
    return {} if report is None else {"weights_sha256": report.sha256, "weights": report.to_dict()}


def _announce(assignment: Assignment, trainer: Trainer, tracker: Tracker, tags: dict[str, Any]) -> None:
    """Write what is about to be trained, and on what, into the log and the run's tags."""
    logger.info(
        "%s on %s: attempt %d, rank %d of %d on %s, %d steps",
        assignment.spec.name,
        assignment.spec.data.dataset,
        assignment.attempt,
        trainer.gang.rank,
        trainer.gang.world_size,
        trainer.gang.device,
        trainer.total_steps,
    )
    logger.info("images: %s", trainer.dataset.split)
    told = tags | {"semantics": assignment.semantics, "split": trainer.dataset.split}
    tracker.tag({f"cbam.{name}": str(value) for name, value in told.items()})


def _run_of(tracker: Tracker) -> dict[str, Any]:
    """The MLflow run, as progress and outcomes name it."""
    return {"mlflow_run_id": tracker.run_id, "mlflow_experiment_id": tracker.project_id}


def _load(assignment: Assignment, gang: ProcessGroup) -> Dataset:
    """The images, on the training device where none are read ahead. Raises DataError where rank 0 has others."""
    data = assignment.spec.data
    dataset = load_dataset(
        data,
        assignment.data_roots,
        allow_download=assignment.allow_download,
        with_test=assignment.semantics != EARLIEST,
    )
    if gang.from_leader(dataset.fingerprint) != dataset.fingerprint:
        raise DataError(f"rank {gang.rank} has other images than rank 0: copy the same folder to every node")
    return dataset if data.workers_per_rank else dataset.to(gang.device)


def _predictions(trainer: Trainer) -> list[PredictionRows]:
    """What was said of each image of each part that was assessed."""
    rows = []
    for name, assessed in trainer.evaluator.kept.items():
        images = trainer.dataset.val if name == "val" else trainer.dataset.test
        assert images is not None, "it was assessed on"
        labels, origin = images.labels.cpu(), images.origin.cpu()
        said = vars(assessed.predictions)
        paths = images.paths()
        groups = _groups(trainer, paths, "val" if name == "val" else "test")
        rows.append(PredictionRows(split=name, index=origin, path=paths, group=groups, label=labels, **said))
    return rows


def _groups(trainer: Trainer, paths: list[str] | None, part: PartName) -> list[str | None] | None:
    if trainer.dataset.groups is not None:
        return list(trainer.dataset.groups[part])
    val = trainer.spec.data.val
    if paths is None or val == "folder" or val.group is None or trainer.spec.data.dataset != "imagefolder":
        return None
    return groups_of(paths, val.group)


def _trained(trainer: Trainer, semantics: Semantics) -> Trained:
    dataset, kept = trainer.dataset, trainer.evaluator.kept
    evaluations: dict[str, Evaluation] = {name: kept[name].evaluation for name in ("val", "test") if name in kept}
    return Trained(
        network=trainer.learner.result,
        spec=trainer.spec,
        classes=dataset.classes,
        input_shape=dataset.input_shape,
        normalisation=trainer.normalisation,
        device=trainer.gang.device,
        semantics=semantics,
        predictions=_predictions(trainer),
        confusions={
            name: {
                "classes": dataset.classes,
                "counts": evaluation.confusion.tolist(),
                "accuracy": evaluation.per_class,
            }
            for name, evaluation in evaluations.items()
        },
    )


def _require(spec: ExperimentSpec, gang: ProcessGroup, probe: Probe | None) -> None:
    """Raises CbamError where this machine lacks what the training would miss at its first step, or at its end."""
    if gang.leads and probe is None:
        require(spec.export)
    if spec.train.compile or (probe is not None and probe.control.train.compile):
        require_compiler(gang.device)


def _watched(
    assignment: Assignment, report: _LastProgress, give_up: Callable[[float], None]
) -> contextlib.AbstractContextManager[None]:
    """While open, the attempt ends itself where it stalls."""
    batch_size = assignment.spec.train.global_batch_size
    return watched(
        lambda: report.last,
        lambda progress: hang_timeout_seconds(assignment.hang_seconds, progress, batch_size),
        log=assignment.folder.attempt(assignment.attempt).log(assignment.rank),
        give_up=give_up,
    )


def _tracker(assignment: Assignment) -> Tracker:
    """Rank 0 tracks, and leaves the spec, which is one of the run's artifacts."""
    if assignment.rank:
        return Tracker()
    write_once(assignment.folder.semantics, f"{assignment.semantics}\n", parents=False)
    write_once(assignment.folder.spec, assignment.spec.to_yaml(), parents=False)
    if assignment.probe is not None:
        return Tracker()  # it would stand in MLflow among trainings, as one without curves
    return MlflowTracker(assignment, assignment.tracking_uri) if assignment.tracking_uri else JournalTracker(assignment)


@lru_cache(maxsize=16)
def _cost(model: ModelSpec, num_classes: int, input_shape: tuple[int, int, int], semantics: Semantics) -> Description:
    """Parameters and multiply-adds, counted on a network without memory; once for all trials of a warm worker."""
    with torch.device("meta"):
        bare = model.model_copy(update={"pretrained": False})
        network = build_network(bare, num_classes, input_shape[0], semantics=semantics)
    return describe(network, input_shape)


def _facts(cost: Description, dataset: Dataset) -> dict[str, Any]:
    """What is trained, on how many images, and what one of them costs."""
    return {
        "parameters": cost.parameters,
        "macs": cost.macs,
        "classes": dataset.num_classes,
        "train_images": len(dataset.train),
        "val_images": len(dataset.val),
        "test_images": None if dataset.test is None else len(dataset.test),
        "split": dataset.split,
        "data": f"{dataset.fingerprint:016x}",
    }


def _summary(trainer: Trainer, macs: int, wall_seconds: float) -> dict[str, Any]:
    """How fast the training was and what it took; wall_seconds and images_per_second are of this attempt alone."""
    speed, device = trainer.pace.mean_images_per_second, trainer.gang.device
    peak = peak_flops(device, trainer.recipe.precision, trainer.gang.world_size)
    return {
        "images_per_second": speed,
        "data_wait_share": trainer.pace.data_wait_share,
        "model_flops_utilisation": model_flops_utilisation(macs, speed, peak) if speed and peak else None,
        "peak_memory_bytes": peak_memory_bytes(device),
        "wall_seconds": wall_seconds,
        "resumed_from_step": trainer.resumed_from,
    }


def _failed(assignment: Assignment, error: Exception, log: RankLog, progress: _LastProgress) -> Outcome:
    """How it failed. A run that diverged has a result in a comparison, so what is known at its start is told too."""
    logger.error("the attempt failed", exc_info=error)
    reason = classify(error)
    hint = f"\n{_OUT_OF_MEMORY_HINT}" if reason == "CUDA_OOM" else ""
    return Outcome(
        outcome="failed",
        reason=reason,
        message=f"{type(error).__name__}: {error}{hint}\n\nLast log lines:\n{log.last_lines(_LAST_LINES)}",
        step=progress.last.step,
        metrics=progress.last.metrics,
        summary=progress.facts,
        rank=assignment.rank,
        attempt=assignment.attempt,
        token=assignment.token,
    )
