"""Reconcile one experiment: compare its row with what is seen of its gang, and make the moves that are due."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from cbam_core.errors import SpecError
from service.cluster.base import Cluster, ClusterView, GangKey, GangView, StopMode
from service.database.models.experiments import Attempt, Experiment
from service.dispatcher.liveness import AttemptMemory, LivenessMonitor
from service.dispatcher.prometheus import DispatcherMetrics
from service.dispatcher.scheduler import Scheduler
from service.dispatcher.store import AttemptEnd, DispatcherStore, ProgressUpdate
from service.domain.scheduling_spec import SchedulingSpec, load_scheduling_spec
from service.domain.states import TERMINAL, Desired, Liveness, Move, Reason, Situation, State, decide
from service.domain.values import utc_now
from service.errors import StaleMove
from service.experiments import logs
from service.settings import Settings
from workers.protocol.outcome import Outcome, read_outcome
from workers.protocol.storage import ExperimentFolder

log = logging.getLogger("service.dispatcher")


class Reconciler:
    """Makes the moves of experiments, one by one. What it remembers between ticks may be lost without harm.

    made_room  whether an attempt has ended in this tick; `moved`: whether anything has
    """

    def __init__(
        self,
        store: DispatcherStore,
        cluster: Cluster,
        settings: Settings,
        *,
        scheduler: Scheduler,
        metrics: DispatcherMetrics,
        clock: Callable[[], float],
    ) -> None:
        self.store, self.cluster, self.settings, self.clock = store, cluster, settings, clock
        self.scheduler, self.metrics = scheduler, metrics
        self.liveness = LivenessMonitor(cluster, settings, clock)
        self.memories: dict[GangKey, AttemptMemory] = {}
        self.updates: list[ProgressUpdate] = []  # progress that is still to be written, all at once
        self.made_room = self.moved = False

    def forget(self) -> None:
        """Drop all that is remembered: another dispatcher leads."""
        self.memories.clear()
        self.updates.clear()

    def tick_failed(self) -> None:
        """An error ended the tick: what could not be written must not fail every later one."""
        self.updates.clear()
        self.made_room = self.moved = True  # as far as the tick came

    def keep_only(self, wanted: set[GangKey]) -> None:
        """Forget the attempts that are not live any more."""
        self.memories = {key: memory for key, memory in self.memories.items() if key in wanted}

    def launched(self, keys: Iterable[GangKey]) -> None:
        """Remember that these have just been launched."""
        self.memories |= {key: AttemptMemory(launched=True) for key in keys}

    def write_progress(self) -> None:
        """Write what `attend` has noted of progress."""
        self.store.note_progress(self.updates)
        self.updates.clear()

    def settle(self, row: Experiment) -> None:
        """Move what waits without a gang."""
        situation = Situation(state=State(row.state), desired=Desired(row.desired), past_deadline=_is_late(row))
        if move := decide(situation):
            self._apply(row, move, None)

    def attend(self, row: Experiment, attempt: Attempt, view: ClusterView | None) -> None:
        """Bring one live experiment forward by as many moves as are due."""
        key = GangKey(row.id, attempt.number)
        memory = self.memories.setdefault(key, AttemptMemory())
        seen = self._see(row, attempt, memory, view)
        if seen.outcome is not None and seen.outcome.token == attempt.token:
            memory.told = seen.outcome
        record = self._record(row, attempt) or memory.told
        memory.placed = seen.placed or memory.placed
        seen = replace(seen, placed=memory.placed)  # a gang that is gone has no place any more, but had one
        stored, damage = load_scheduling_spec(row.spec)
        if damage and row.state in (State.STARTING, State.RUNNING):
            memory.cause, seen = memory.cause or Reason.USER_ERROR, replace(seen, message=damage)
        elif record is None and memory.cause is None and view is not None:
            memory.cause = self.liveness.cause_of_end(row, memory, seen, batch_size=stored.train.global_batch_size)
        cause = memory.cause if record is None else None
        over = cause is not None or (record is not None and self.liveness.has_let_go(memory, seen, record))
        if over:
            self.cluster.release(key, linger=record is not None and record.outcome == "succeeded")
        gone = over and view is not None and key not in view.gangs
        self._note_progress(row, memory, seen, record)
        while True:
            situation = self._situation(row, attempt, seen, stored, gone=gone, record=record, cause=cause)
            move = decide(situation)
            if move is None:
                break
            ends = move.to in TERMINAL or move.to in (State.QUEUED, State.PAUSED)
            moved = self._apply(row, move, _ending(row, move, seen, record, stored) if ends else None, attempt)
            if moved is None or ends:
                self.made_room |= moved is not None
                return
            row = moved
        if not over:
            self._ask_to_stop(row, key, memory)

    def _record(self, row: Experiment, attempt: Attempt) -> Outcome | None:
        """The result record, which beats what the cluster says; one that bears another token is not this attempt's."""
        folder = ExperimentFolder(self.settings.storage_root, row.id).attempt(attempt.number)
        try:
            record = read_outcome(folder)
        except (OSError, ValueError, TypeError) as error:
            log.warning("the result record of %s-%s cannot be read: %s", row.id, attempt.number, error)
            return None
        return record if record is not None and record.token == attempt.token else None

    def _see(self, row: Experiment, attempt: Attempt, memory: AttemptMemory, view: ClusterView | None) -> GangView:
        """What is seen of the gang; one that was claimed but never launched is launched now."""
        if view is None:
            memory.lose_sight()
            return GangView(liveness=Liveness.UNKNOWN)
        key = GangKey(row.id, attempt.number)
        if row.state == State.STARTING and not memory.launched:  # claimed by a dispatcher that then ended
            return self._launch(row, attempt, memory)
        if key in view.gangs:
            return view.gangs[key]
        return GangView(liveness=Liveness.DEAD, reason=Reason.CLUSTER_LOST, message="the cluster knows nothing of it")

    def _launch(self, row: Experiment, attempt: Attempt, memory: AttemptMemory) -> GangView:
        """Launch what is claimed; where its stored spec is not valid any more, there is nothing to wait for."""
        try:
            self.scheduler.launch(row, attempt)
        except SpecError as error:
            return GangView(liveness=Liveness.DEAD, reason=Reason.USER_ERROR, message=str(error))
        memory.launched = True
        return GangView(liveness=Liveness.UNKNOWN)

    def _situation(
        self,
        row: Experiment,
        attempt: Attempt,
        seen: GangView,
        stored: SchedulingSpec,
        *,
        gone: bool,
        record: Outcome | None,
        cause: Reason | None,
    ) -> Situation:
        reason = Reason(record.reason) if record is not None and record.reason else cause
        step = record.step if record is not None else max(seen.progress.step, row.progress.get("step", 0))
        charged = reason is not None and gone
        return Situation(
            state=State(row.state),
            desired=Desired(row.desired),
            past_deadline=_is_late(row),
            free_retries=row.free_retries,
            charged_retries=row.charged_retries,
            max_restarts=stored.retry.max_restarts,
            progressed=step > self.store.previous_step(attempt) if charged else True,
            placed=bool(seen.placed),
            stepped=seen.progress.step > 0 and seen.liveness is Liveness.ALIVE,
            gang_gone=gone,
            outcome=record.outcome if record is not None else None,
            reason=reason,
            message=record.message if record is not None else self._message(row, seen, cause),
        )

    def _message(self, row: Experiment, seen: GangView, cause: Reason | None) -> str:
        if cause is None:
            return ""
        if cause is Reason.START_TIMEOUT and not seen.placed:
            return f"found no room in {self.settings.start_timeout_seconds:g} s, though there seemed to be some"
        tail = logs.tail(self.settings.storage_root, row.id, row.attempt)
        return "\n".join(part for part in (seen.message or cause.value, tail) if part)

    def _ask_to_stop(self, row: Experiment, key: GangKey, memory: AttemptMemory) -> None:
        yields = row.desired == Desired.YIELD and row.state == State.RUNNING
        mode: StopMode = "cancel" if row.state == State.CANCELLING else "pause"
        if not yields and row.state not in (State.CANCELLING, State.PAUSING):
            return
        self.cluster.stop(key, mode)  # at every tick: a gang that a new dispatcher has not found yet does not hear it
        if memory.stop_sent != mode:
            memory.stop_sent, memory.stop_sent_at = mode, self.clock()

    def _note_progress(self, row: Experiment, memory: AttemptMemory, seen: GangView, record: Outcome | None) -> None:
        if record is not None or seen.liveness is not Liveness.ALIVE:
            return
        progress = seen.progress.to_dict()
        progress.pop("heartbeat")
        if memory.written != progress:
            run_id, run_in = seen.progress.mlflow_run_id, seen.progress.mlflow_experiment_id
            self.updates.append(ProgressUpdate(row.id, row.attempt, progress, run_id, run_in))
            row.progress, memory.written = progress, progress

    def _apply(
        self, row: Experiment, move: Move, ending: AttemptEnd | None, attempt: Attempt | None = None
    ) -> Experiment | None:
        """Make a move; a stale one is dropped and decided anew at the next tick."""
        try:
            moved = self.store.apply(row, move, ending)
        except StaleMove:
            return None
        self.moved = True
        log.info("%s → %s", row.state, move.to, extra={"experiment_id": row.id, "reason": move.reason})
        self.metrics.moved(row, attempt, move)
        return moved


def _is_late(row: Experiment) -> bool:
    return row.deadline_at is not None and utc_now() > row.deadline_at


def _ending(row: Experiment, move: Move, seen: GangView, record: Outcome | None, stored: SchedulingSpec) -> AttemptEnd:
    """What the rows keep of an attempt that is over."""
    progress = dict(row.progress)
    if record is None:
        return AttemptEnd(last_step=progress.get("step", 0), node_ids=seen.node_ids, progress=progress or None)
    progress |= {"phase": "ended", "step": record.step, "eta_seconds": None, "metrics": record.metrics}
    if record.outcome == "succeeded" and row.probed_against is None:
        epochs = max(stored.train.epochs, progress.get("epochs", 0))
        progress |= {"epoch": epochs, "epochs": epochs, "total_steps": record.step}
    return AttemptEnd(
        last_step=record.step,
        resumed_from_step=record.summary.get("resumed_from_step"),
        node_ids=seen.node_ids,
        progress=progress,
        summary=record.summary,
        run_id=record.mlflow_run_id,
        run_in=record.mlflow_experiment_id,
        tracked=record.tracked and record.outcome.upper() == move.to,
    )
