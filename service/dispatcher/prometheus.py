"""What the dispatcher tells of its own work: numbers for Prometheus, by way of the database, and spans.

The dispatcher is a process of its own, perhaps on another machine, and opens no port. It leaves its numbers in one row
every few seconds; whoever asks an API for `/metrics` gets them beside the API's own.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service.cluster.base import ClusterView
from service.database.models.experiments import Attempt, Experiment
from service.domain.states import TERMINAL, Move, State
from service.domain.values import utc_now
from workers import tracing

REPORT_SECONDS = 5.0
LONGEST_TROUBLE = 500  # characters of an error
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 3.0  # after a tick that failed; a lease lasts longer
WAIT_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200)


class DispatcherMetrics:
    """The numbers of one dispatcher since its start, and the spans of what it does."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._due: float | None = None
        registry = self.registry
        self._ticks = Histogram("cbam_dispatcher_tick_seconds", "Time of one tick of the leader", registry=registry)
        self._queued = Histogram(
            "cbam_queue_seconds", "From QUEUED to an attempt", buckets=WAIT_BUCKETS, registry=registry
        )
        self._starts = Histogram(
            "cbam_start_seconds", "From the attempt to its first step", buckets=WAIT_BUCKETS, registry=registry
        )
        self._attempts = Counter("cbam_attempts_ended", "Attempts by how they ended", ["reason"], registry=registry)
        self._ended = Counter(
            "cbam_experiments_ended", "Experiments by how they ended", ["state", "reason"], registry=registry
        )
        self._errors = Counter("cbam_dispatcher_errors", "Experiments that a tick could not attend", registry=registry)
        self._failed_ticks = Counter("cbam_dispatcher_failed_ticks", "Ticks that an error ended", registry=registry)
        self.trouble = ""  # what ended the last tick
        self._failures = 0  # of ticks, one after another
        self._seen = Gauge("cbam_cluster_reachable", "1 while the Ray cluster can be seen", registry=registry)
        self._cluster = Gauge("cbam_cluster", "CPUs, GPUs and nodes", ["resource", "kind"], registry=registry)

    @contextmanager
    def tick(self) -> Iterator[None]:
        """Time one tick."""
        began = time.perf_counter()
        yield
        self._ticks.observe(time.perf_counter() - began)
        if self.trouble:
            self.trouble, self._failures, self._due = "", 0, None

    def tick_failed(self, error: Exception) -> float:
        """An error ended the tick; returns the seconds to wait before the next one, more after each failure."""
        self._failed_ticks.inc()
        self._failures += 1
        trouble = f"{type(error).__name__}: {error}"[:LONGEST_TROUBLE]
        if trouble != self.trouble:
            self.trouble, self._due = trouble, None
        return float(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 10)))

    def looked(self, view: ClusterView | None) -> None:
        """What a look at the cluster showed."""
        self._seen.set(view is not None)
        nodes = () if view is None else view.nodes
        for resource, kind, value in (
            ("nodes", "total", len(nodes)),
            ("cpu", "total", sum(node.cpus for node in nodes)),
            ("cpu", "free", sum(node.free_cpus for node in nodes)),
            ("gpu", "total", sum(node.gpus for node in nodes)),
            ("gpu", "free", sum(node.free_gpus for node in nodes)),
        ):
            self._cluster.labels(resource, kind).set(value)

    def claimed(self, row: Experiment, attempt: Attempt) -> None:
        """An experiment left the queue."""
        since = max(row.queued_at, row.not_before or row.queued_at)
        self._queued.observe(max(0.0, (attempt.started_at - since).total_seconds()))
        self._span("queue", row, since, attempt.started_at, attempt=attempt.number)

    def moved(self, row: Experiment, attempt: Attempt | None, move: Move) -> None:
        """An experiment moved from the row's state."""
        reason = move.reason or ""
        if attempt is not None and move.to is State.RUNNING and row.state == State.STARTING:
            now = utc_now()
            self._starts.observe((now - attempt.started_at).total_seconds())
            self._span("start", row, attempt.started_at, now, attempt=attempt.number, workers=attempt.workers)
        if attempt is not None and move.to in TERMINAL | {State.QUEUED, State.PAUSED}:
            self._attempts.labels(reason or str(move.to)).inc()
        if move.to in TERMINAL:
            self._ended.labels(str(move.to), reason).inc()

    def failed(self) -> None:
        """An experiment could not be attended."""
        self._errors.inc()

    def due(self) -> str | None:
        """The numbers as text, once every few seconds; None meanwhile."""
        now = self._clock()
        if self._due is not None and now < self._due:
            return None
        self._due = now + REPORT_SECONDS
        return generate_latest(self.registry).decode()

    def _span(self, name: str, row: Experiment, begin: datetime, end: datetime, **attributes: int) -> None:
        about: dict[str, tracing.Attribute] = {"cbam.experiment_id": row.id}
        about |= {f"cbam.{key}": value for key, value in attributes.items()}
        tracing.record(f"dispatcher: {name}", "dispatcher", parent=row.traceparent, begin=begin, end=end, **about)
