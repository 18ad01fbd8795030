"""The dispatcher: compares the rows with what is seen of the cluster, and makes the next moves.

Every tick loads rows (short transaction), looks at the cluster and at the result records (no transaction), and applies
moves one by one (short transactions, guarded by the lease and the row's version). Nothing it needs is kept in memory
alone, so it may be killed at any time.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from cbam_core.errors import SpecError
from service.cluster.base import Cluster, ClusterView, GangKey, GangView, StopMode
from service.database.engine import Database
from service.database.lease import Leadership
from service.database.models.experiments import Attempt, Experiment
from service.dispatcher.cluster_status import ClusterStatusWriter
from service.dispatcher.file_cleanup import FileCleanup
from service.dispatcher.liveness import AttemptMemory, LivenessMonitor
from service.dispatcher.mlflow_runs import RunFinalizer
from service.dispatcher.prometheus import DispatcherMetrics
from service.dispatcher.scheduler import Scheduler
from service.dispatcher.store import AttemptEnd, DispatcherStore, Live, ProgressUpdate
from service.domain.scheduling_spec import SchedulingSpec, load_scheduling_spec
from service.domain.states import TERMINAL, Desired, Liveness, Move, Reason, Situation, State, decide
from service.domain.values import utc_now
from service.errors import ClusterUnavailable, NotLeading, StaleMove
from service.experiments import logs
from service.log_format import log_context
from service.settings import Settings
from workers.protocol.outcome import Outcome, read_outcome
from workers.protocol.storage import ExperimentFolder

log = logging.getLogger("service.dispatcher")


class Dispatcher:
    """One dispatcher. Several may run; the one that holds the lease works, the others wait."""

    def __init__(
        self, database: Database, cluster: Cluster, settings: Settings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        holder = f"dispatcher {socket.gethostname()}:{os.getpid()}"
        self.leadership = Leadership(database, holder=holder, seconds=settings.lease_seconds)
        self.dispatcher_store = DispatcherStore(
            database, self.leadership, backoff_seconds=settings.retry_backoff_seconds
        )
        self.cluster = cluster
        self.settings = settings
        self.clock = clock
        self.report = DispatcherMetrics(clock)
        self.scheduler = Scheduler(self.dispatcher_store, cluster, settings, self.report)
        self.closer = RunFinalizer(
            self.dispatcher_store, storage=settings.storage_root, tracking_uri=settings.mlflow_tracking_uri, clock=clock
        )
        self.file_cleanup = FileCleanup(self.dispatcher_store, storage=settings.storage_root, clock=clock)
        self.status_writer = ClusterStatusWriter(self.dispatcher_store, clock=clock)
        self.trouble = ""  # why the cluster could not be seen when it was last looked at
        self.liveness_monitor = LivenessMonitor(cluster, settings, clock)
        self.watches: dict[GangKey, AttemptMemory] = {}
        self.notes: list[ProgressUpdate] = []  # progress that is still to be written, all at once
        self.made_room = False  # whether an attempt has ended in this tick
        self.moved = False  # whether anything has
        self.renewed_at: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Tick until told to stop. A database that is away is waited for; any other error is reported."""
        while not stop.is_set():
            began = time.monotonic()
            try:
                self.tick()
            except NotLeading:
                self.renewed_at = None
            except OperationalError as error:
                log.warning("the database does not answer: %s", error.orig)
            except Exception as error:
                stop.wait(self._note_failure(error))
            stop.wait(min(self.settings.tick_seconds, time.monotonic() - began))  # at most half of the time is ours
            if not stop.is_set():
                self.cluster.wait(self.settings.tick_seconds)
        try:
            self.leadership.release()
        except OperationalError as error:
            log.warning("the lease cannot be given back, and runs out by itself: %s", error.orig)
        self.closer.close()
        self.file_cleanup.close()
        self.cluster.close()

    def tick(self) -> None:
        """Look once and make every move that is due. Does nothing while another dispatcher leads."""
        if not self._leads():
            self.watches.clear()
            self.notes.clear()
            return
        with self.report.tick():
            self._work()
        self._report()

    def _note_failure(self, error: Exception) -> float:
        """Report an error that ended the tick, in the log and in /readyz; returns the seconds to wait."""
        before, pause = self.report.trouble, self.report.tick_failed(error)
        if self.report.trouble != before:  # not several times a second
            log.exception("the tick failed")
        self.notes.clear()  # what cannot be written must not fail every later tick
        self.made_room = self.moved = True  # as far as the tick came
        try:
            self._report()
        except (NotLeading, SQLAlchemyError) as unwritten:
            log.warning("nor can the failure be written down: %s", unwritten)
        return pause

    def _report(self) -> None:
        if (text := self.report.due()) is not None:
            self.dispatcher_store.report(text, trouble=self.report.trouble)

    def _work(self) -> None:
        view = self._look()
        self.report.looked(view)
        for row in self.dispatcher_store.unsettled():
            with self._apart(row):
                self._settle(row)
        live = self.dispatcher_store.live()
        self.cluster.expect(_gangs(live))
        for row, attempt in live:
            if not self._leads():  # a tick over thousands may outlast the lease that it began with
                return
            with self._apart(row), log_context(experiment_id=row.id, attempt=attempt.number):
                self._attend(row, attempt, view)
        self.dispatcher_store.note_progress(self.notes)
        self.notes.clear()
        wanted = {GangKey(row.id, row.attempt) for row, _ in live}
        self.watches = {key: watch for key, watch in self.watches.items() if key in wanted}
        if view is not None:
            self._reap(view, wanted)
            seen = (self._look() if self.made_room else None) or view
            for key in self.scheduler.admit(seen, self.dispatcher_store.live() if self.moved else live):
                self.watches[key] = AttemptMemory(launched=True)
        self.made_room = self.moved = False
        self.closer.tick()
        self._keep_house(view)

    @contextmanager
    def _apart(self, row: Experiment) -> Iterator[None]:
        """One experiment that cannot be attended must not hold up the others."""
        try:
            yield
        except (NotLeading, OperationalError):
            raise
        except Exception:
            log.exception("this experiment cannot be attended", extra={"experiment_id": row.id})
            self.report.failed()

    def _keep_house(self, view: ClusterView | None) -> None:
        """Tell the API what the cluster has, and erase what was deleted, once no worker can write to it any more."""
        if view is None:
            self.status_writer.note(None, self.trouble)
            return
        self.status_writer.note(view.nodes)
        self.file_cleanup.tick({key.experiment_id for key in view.gangs})

    def _leads(self) -> bool:
        now = self.clock()
        if self.renewed_at is None or now - self.renewed_at > self.settings.lease_seconds / 3:
            led = self.renewed_at is not None
            self.renewed_at = now if self.leadership.renew() else None
            if led != (self.renewed_at is not None):
                log.info("%s %s", self.leadership.holder, "lost the lease" if led else "leads")
            if self.renewed_at is not None and not self.cluster.lead(now + self.settings.lease_seconds - self.clock()):
                self.watches.clear()
                return False  # the next tick begins anew, with what is seen then
        return self.renewed_at is not None

    def _look(self) -> ClusterView | None:
        try:
            return self.cluster.observe()
        except ClusterUnavailable as error:
            log.debug("nothing is known of the cluster: %s", error)
            self.trouble = str(error)
            return None

    def _settle(self, row: Experiment) -> None:
        """Move what waits without a gang."""
        situation = Situation(state=State(row.state), desired=Desired(row.desired), past_deadline=_is_late(row))
        if move := decide(situation):
            self._apply(row, move, None)

    def _attend(self, row: Experiment, attempt: Attempt, view: ClusterView | None) -> None:
        """Bring one live experiment forward by as many moves as are due."""
        key = GangKey(row.id, attempt.number)
        watch = self.watches.setdefault(key, AttemptMemory())
        seen = self._see(row, attempt, watch, view)
        if seen.outcome is not None and seen.outcome.token == attempt.token:
            watch.told = seen.outcome
        record = self._record(row, attempt) or watch.told
        watch.placed = seen.placed or watch.placed
        seen = replace(seen, placed=watch.placed)  # a gang that is gone has no place any more, but had one
        stored, damage = load_scheduling_spec(row.spec)
        if damage and row.state in (State.STARTING, State.RUNNING):
            watch.cause, seen = watch.cause or Reason.USER_ERROR, replace(seen, message=damage)
        elif record is None and watch.cause is None and view is not None:
            watch.cause = self.liveness_monitor.cause_of_end(
                row, watch, seen, batch_size=stored.train.global_batch_size
            )
        cause = watch.cause if record is None else None
        over = cause is not None or (record is not None and self.liveness_monitor.has_let_go(watch, seen, record))
        if over:
            self.cluster.release(key, linger=record is not None and record.outcome == "succeeded")
        gone = over and view is not None and key not in view.gangs
        self._note_progress(row, watch, seen, record)
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
            self._ask_to_stop(row, key, watch)

    def _record(self, row: Experiment, attempt: Attempt) -> Outcome | None:
        """The result record, which beats what the cluster says; one that bears another token is not this attempt's."""
        folder = ExperimentFolder(self.settings.storage_root, row.id).attempt(attempt.number)
        try:
            record = read_outcome(folder)
        except (OSError, ValueError, TypeError) as error:
            log.warning("the result record of %s-%s cannot be read: %s", row.id, attempt.number, error)
            return None
        return record if record is not None and record.token == attempt.token else None

    def _see(self, row: Experiment, attempt: Attempt, watch: AttemptMemory, view: ClusterView | None) -> GangView:
        """What is seen of the gang; one that was claimed but never launched is launched now."""
        if view is None:
            watch.lose_sight()
            return GangView(liveness=Liveness.UNKNOWN)
        key = GangKey(row.id, attempt.number)
        if row.state == State.STARTING and not watch.launched:  # claimed by a dispatcher that then ended
            return self._launch(row, attempt, watch)
        if key in view.gangs:
            return view.gangs[key]
        return GangView(liveness=Liveness.DEAD, reason=Reason.CLUSTER_LOST, message="the cluster knows nothing of it")

    def _launch(self, row: Experiment, attempt: Attempt, watch: AttemptMemory) -> GangView:
        """Launch what is claimed; where its stored spec is not valid any more, there is nothing to wait for."""
        try:
            self.scheduler.launch(row, attempt)
        except SpecError as error:
            return GangView(liveness=Liveness.DEAD, reason=Reason.USER_ERROR, message=str(error))
        watch.launched = True
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
            progressed=step > self.dispatcher_store.previous_step(attempt) if charged else True,
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

    def _ask_to_stop(self, row: Experiment, key: GangKey, watch: AttemptMemory) -> None:
        yields = row.desired == Desired.YIELD and row.state == State.RUNNING
        mode: StopMode = "cancel" if row.state == State.CANCELLING else "pause"
        if not yields and row.state not in (State.CANCELLING, State.PAUSING):
            return
        self.cluster.stop(key, mode)  # at every tick: a gang that a new dispatcher has not found yet does not hear it
        if watch.stop_sent != mode:
            watch.stop_sent, watch.stop_sent_at = mode, self.clock()

    def _note_progress(self, row: Experiment, watch: AttemptMemory, seen: GangView, record: Outcome | None) -> None:
        if record is not None or seen.liveness is not Liveness.ALIVE:
            return
        progress = seen.progress.to_dict()
        progress.pop("heartbeat")
        if watch.written != progress:
            self.notes.append(ProgressUpdate(row.id, row.attempt, progress, seen.progress.mlflow_run_id))
            row.progress, watch.written = progress, progress

    def _apply(
        self, row: Experiment, move: Move, ending: AttemptEnd | None, attempt: Attempt | None = None
    ) -> Experiment | None:
        """Make a move; a stale one is dropped and decided anew at the next tick."""
        try:
            moved = self.dispatcher_store.apply(row, move, ending)
        except StaleMove:
            return None
        self.moved = True
        log.info("%s → %s", row.state, move.to, extra={"experiment_id": row.id, "reason": move.reason})
        self.report.moved(row, attempt, move)
        return moved

    def _reap(self, view: ClusterView, wanted: set[GangKey]) -> None:
        """Free what no live attempt wants: left by a crash between two steps, superseded, or ended."""
        for key in view.gangs.keys() - wanted:
            self.cluster.release(key)


def _gangs(live: Live) -> dict[str, GangKey]:
    """Which attempt each gang runs by the rows: of several, the one that was claimed last."""
    by_claim = sorted(live, key=lambda one: one[1].started_at)
    return {attempt.gang: GangKey(row.id, attempt.number) for row, attempt in by_claim if attempt.gang}


def _is_late(row: Experiment) -> bool:
    return row.deadline_at is not None and utc_now() > row.deadline_at


def _ending(row: Experiment, move: Move, seen: GangView, record: Outcome | None, stored: SchedulingSpec) -> AttemptEnd:
    """What the rows keep of an attempt that is over."""
    progress = dict(row.progress)
    if record is None:
        return AttemptEnd(last_step=progress.get("step", 0), node_ids=seen.node_ids, progress=progress or None)
    progress |= {"phase": "ended", "step": record.step, "eta_seconds": None, "metrics": record.metrics}
    if record.outcome == "succeeded":
        epochs = max(stored.train.epochs, progress.get("epochs", 0))
        progress |= {"epoch": epochs, "epochs": epochs, "total_steps": record.step}
    return AttemptEnd(
        last_step=record.step,
        resumed_from_step=record.summary.get("resumed_from_step"),
        node_ids=seen.node_ids,
        progress=progress,
        summary=record.summary,
        run_id=record.mlflow_run_id,
        tracked=record.tracked and record.outcome.upper() == move.to,
    )
