"""The numbers of the service for Prometheus: what the rows say, and how requests are answered."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.database.lease import current_leader
from service.database.models.operations import ProcessReport
from service.database.operations import Operations
from service.domain.values import utc_now

LOOP_LOOK_SECONDS = 0.5
STALE_SECONDS = 60.0  # numbers of a dispatcher that is gone are shown no longer


class ServiceMetrics:
    """One registry for one app."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self.registry = CollectorRegistry()
        self.registry.register(_Rows(operations))
        self.requests = Counter(
            "cbam_http_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "cbam_http_request_seconds", "Time to the first byte", ["method", "route"], registry=self.registry
        )
        self.loop_lag = Histogram(
            "cbam_event_loop_lag_seconds",
            "How much later than asked the event loop comes back",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
            registry=self.registry,
        )

    def render(self) -> tuple[bytes, str]:
        """The numbers of this process and of the dispatcher as text, and the text's media type."""
        report = self.operations.dispatcher_report()
        of_dispatcher = report.metrics.encode() if report is not None and _age(report) < STALE_SECONDS else b""
        return generate_latest(self.registry) + of_dispatcher, CONTENT_TYPE_LATEST


class _Rows(Collector):
    """Counted in the database at each scrape, so that every replica tells the same."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is counted at registration."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The experiments by state, and whether a dispatcher leads."""
        states = GaugeMetricFamily("cbam_experiments", "Experiments in each state", labels=["state"])
        for state, count in self.operations.count_by_state().items():
            states.add_metric([state], count)
        yield states
        waiting = self.operations.longest_waiting_seconds()
        yield GaugeMetricFamily("cbam_queue_oldest_seconds", "How long the oldest QUEUED one has waited", value=waiting)
        leads = current_leader(self.operations.database) is not None
        yield GaugeMetricFamily("cbam_dispatcher_leads", "1 while a dispatcher holds the lease", value=float(leads))
        report = self.operations.dispatcher_report()
        age = _age(report) if report is not None else math.nan
        yield GaugeMetricFamily("cbam_dispatcher_report_age_seconds", "Since the dispatcher's last report", value=age)


def _age(report: ProcessReport) -> float:
    return (utc_now() - report.at).total_seconds()


@asynccontextmanager
async def watching_loop(lag: Histogram) -> AsyncIterator[None]:
    """Ask the running event loop twice a second to come back, and note how late it does: blocked loops are seen."""

    async def watch() -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(LOOP_LOOK_SECONDS)
            lag.observe(max(0.0, time.perf_counter() - asked - LOOP_LOOK_SECONDS))

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
