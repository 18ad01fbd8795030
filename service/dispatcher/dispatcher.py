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

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from service.cluster.base import Cluster, ClusterView, GangKey
from service.comparisons.planner import ComparisonPlanner
from service.comparisons.recording.rows import StudyRunRows
from service.database.engine import Database
from service.database.lease import Leadership
from service.database.models.experiments import Experiment
from service.dispatcher.cluster_status import ClusterStatusWriter
from service.dispatcher.disk_usage import DiskMeter, DiskQuota
from service.dispatcher.file_cleanup import FileCleanup
from service.dispatcher.file_store import FileStore
from service.dispatcher.mlflow_runs import RunFinalizer
from service.dispatcher.prometheus import DispatcherMetrics
from service.dispatcher.reconciler import Reconciler
from service.dispatcher.scheduler import Scheduler
from service.dispatcher.store import DispatcherStore, Live
from service.dispatcher.study_recording import StudyRecording
from service.domain.studies import StudyKind
from service.errors import ClusterUnavailable, NotLeading
from service.log_format import log_context
from service.settings import Settings
from service.studies.controller import StudyController
from service.studies.rows import StudyRows
from service.sweeps.planner import SweepPlanner

log = logging.getLogger("service.dispatcher")


class Dispatcher:
    """One dispatcher. Several may run; the one that holds the lease works, the others wait."""

    def __init__(
        self, database: Database, cluster: Cluster, settings: Settings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        holder = f"dispatcher {socket.gethostname()}:{os.getpid()}"
        self.leadership = Leadership(database, holder=holder, seconds=settings.lease_seconds)
        self.store = DispatcherStore(database, self.leadership, backoff_seconds=settings.retry_backoff_seconds)
        self.cluster = cluster
        self.settings = settings
        self.clock = clock
        self.report = DispatcherMetrics(clock)
        files = FileStore(database, self.leadership)
        quota = DiskQuota(files, settings.quota_disk, clock=clock)
        self.scheduler = Scheduler(self.store, cluster, settings, self.report, disk_quota=quota)
        self.disk_meter = DiskMeter(files, storage=settings.storage_root, clock=clock)
        self.run_finalizer = RunFinalizer(
            self.store, storage=settings.storage_root, tracking_uri=settings.mlflow_tracking_uri, clock=clock
        )
        self.file_cleanup = FileCleanup(self.store, storage=settings.storage_root, clock=clock)
        planners = {StudyKind.COMPARISON: ComparisonPlanner(), StudyKind.SWEEP: SweepPlanner()}
        rows = StudyRows(database, self.leadership)
        self.studies = StudyController(rows, planners, storage=settings.storage_root, clock=clock)
        self.study_recording = StudyRecording(StudyRunRows(database), settings, clock=clock)
        self.status_writer = ClusterStatusWriter(self.store, clock=clock)
        self.trouble = ""  # why the cluster could not be seen when it was last looked at
        self.reconciler = Reconciler(
            self.store, cluster, settings, scheduler=self.scheduler, metrics=self.report, clock=clock
        )
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
        self.run_finalizer.close()
        self.file_cleanup.close()
        self.studies.close()
        self.study_recording.close()
        self.disk_meter.close()
        self.cluster.close()

    def tick(self) -> None:
        """Look once and make every move that is due. Does nothing while another dispatcher leads."""
        if not self._leads():
            self.reconciler.forget()
            self.study_recording.close()
            return
        with self.report.tick():
            self._work()
        self._report()

    def _note_failure(self, error: Exception) -> float:
        """Report an error that ended the tick, in the log and in /readyz; returns the seconds to wait."""
        before, pause = self.report.trouble, self.report.tick_failed(error)
        if self.report.trouble != before:  # not several times a second
            log.exception("the tick failed")
        self.reconciler.tick_failed()
        try:
            self._report()
        except (NotLeading, SQLAlchemyError) as unwritten:
            log.warning("nor can the failure be written down: %s", unwritten)
        return pause

    def _report(self) -> None:
        if (text := self.report.due()) is not None:
            self.store.report(text, trouble=self.report.trouble)

    def _work(self) -> None:
        self.file_cleanup.mark_storage()
        view = self._look()
        self.report.looked(view)
        self._decide_studies()
        for row in self.store.unsettled():
            with self._apart(row):
                self.reconciler.settle(row)
        live = self.store.live()
        self.cluster.expect(_gangs(live))
        for row, attempt in live:
            if not self._leads():  # a tick over thousands may outlast the lease that it began with
                return
            with self._apart(row), log_context(experiment_id=row.id, attempt=attempt.number):
                self.reconciler.attend(row, attempt, view)
        self.reconciler.write_progress()
        wanted = {GangKey(row.id, row.attempt) for row, _ in live}
        self.reconciler.keep_only(wanted)
        if view is not None:
            self._reap(view, wanted)
            seen = (self._look() if self.reconciler.made_room else None) or view
            live = self.store.live() if self.reconciler.moved else live
            self.reconciler.launched(self.scheduler.admit(seen, live))
        self.reconciler.made_room = self.reconciler.moved = False
        self.run_finalizer.tick()
        self.study_recording.tick()
        self._keep_house(view)

    def _decide_studies(self) -> None:
        """Whatever is wrong with studies, experiments go on."""
        try:
            self.studies.tick()
        except (NotLeading, OperationalError):
            raise
        except Exception:
            log.exception("studies cannot be decided")
            self.report.failed()

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
        """Tell the API what the cluster has and what experiments keep on disk.

        Remove what was deleted or pruned, once no worker can write to it any more.
        """
        self.disk_meter.tick()
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
                self.reconciler.memories.clear()
                return False  # the next tick begins anew, with what is seen then
        return self.renewed_at is not None

    def _look(self) -> ClusterView | None:
        try:
            return self.cluster.observe()
        except ClusterUnavailable as error:
            log.debug("nothing is known of the cluster: %s", error)
            self.trouble = str(error)
            return None

    def _reap(self, view: ClusterView, wanted: set[GangKey]) -> None:
        """Free what no live attempt wants: left by a crash between two steps, superseded, or ended."""
        for key in view.gangs.keys() - wanted:
            self.cluster.release(key)


def _gangs(live: Live) -> dict[str, GangKey]:
    """Which attempt each gang runs by the rows: of several, the one that was claimed last."""
    by_claim = sorted(live, key=lambda one: one[1].started_at)
    return {attempt.gang: GangKey(row.id, attempt.number) for row, attempt in by_claim if attempt.gang}
