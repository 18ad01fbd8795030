"""Admission put to work: from the rows and the view to the pure choice, and from the choice to claims and launches."""

import logging
from collections.abc import Mapping
from contextlib import suppress

from cbam_core.errors import SpecError
from cbam_core.semantics import Semantics, as_meant, known
from cbam_core.spec import make_spec
from service.cluster.base import Cluster, ClusterView, GangKey, Launch, Need, Node
from service.cluster.packing import pack
from service.database.models.experiments import Attempt, Experiment
from service.dispatcher.admission import Choice, Holding, Rules, Waiting, choose
from service.dispatcher.disk_usage import DiskQuota
from service.dispatcher.prometheus import DispatcherMetrics
from service.dispatcher.store import DispatcherStore, Live
from service.domain.scheduling_spec import SchedulingSpec, load_scheduling_spec
from service.domain.states import Desired, Move, Reason, State
from service.errors import StaleMove
from service.settings import Settings
from workers.protocol.fence import reopen
from workers.protocol.probe import Probe
from workers.protocol.storage import ExperimentFolder

log = logging.getLogger(__name__)

MOST_ASKED_FOR = 50  # gangs that an autoscaler is told of at once

World = tuple[list[Waiting], list[Holding], tuple[Node, ...]]


class Scheduler:
    """Starts what may start. Part of the leading dispatcher's tick."""

    def __init__(
        self,
        dispatcher_store: DispatcherStore,
        cluster: Cluster,
        settings: Settings,
        report: DispatcherMetrics,
        *,
        disk_quota: DiskQuota,
    ) -> None:
        self.store = dispatcher_store
        self.cluster = cluster
        self.settings = settings
        self.report = report
        self.disk_quota = disk_quota
        self.rules = Rules(
            most_passes=settings.most_passes, quota_cpus=settings.quota_cpus, quota_gpus=settings.quota_gpus
        )
        self.fruitless: World | None = None  # what the last round saw, where nothing came of it
        self.machines: list[tuple[float, float]] | None = None  # what the nodes had in all when they were last seen

    def admit(self, view: ClusterView, live: Live) -> list[GangKey]:
        """Claim and launch what fits beside what is live, ask what is displaced to yield; returns what was launched."""
        machines = sorted((node.cpus, node.gpus) for node in view.nodes)
        if machines != self.machines:
            self.store.ask_anew()
            self.machines = machines
        rows = {row.id: row for row in self.store.queue()}
        queue = self._sound(rows)
        if not queue:
            self.cluster.ask_for([])
            return []
        holding = [_holding(row, attempt, view) for row, attempt in live]
        world = (queue, holding, _free_nodes(view, holding))
        if world == self.fruitless:
            return []
        try:
            choice = choose(*world, self.rules)
        except Exception:
            if self._refuse_unweighable(world, rows):
                return []  # the next tick weighs the others
            raise
        self.fruitless = None if choice.start or choice.preempt else world
        self._tell(choice, rows)
        not_asked_for = choice.start.keys() | choice.forbidden.keys() | choice.over_quota.keys()
        waiting = [item for item in queue if item.id not in not_asked_for]
        waiting.sort(key=lambda item: (-item.priority, item.queued_at, item.id))
        self.cluster.ask_for([item.need(item.sizes[-1]) for item in waiting[:MOST_ASKED_FOR]])
        self.store.ask_to_yield(choice.preempt)
        needs = {item.id: item.need(choice.start[item.id]) for item in queue if item.id in choice.start}
        return [key for name in choice.start if (key := self._start(rows[name], needs[name]))]

    def launch(self, row: Experiment, attempt: Attempt) -> None:
        """Have the cluster start an attempt that is claimed. Raises SpecError where its stored spec is not valid.

        A tombstone is older than the row: it is back from a backup that was made before its deletion.
        """
        semantics = known(row.semantics)
        with suppress(OSError):  # storage is away: the workers will tell
            reopen(ExperimentFolder(self.settings.storage_root, row.id))
        self.cluster.start(
            Launch(
                key=GangKey(row.id, attempt.number),
                token=attempt.token,
                spec=as_meant(make_spec(row.spec, source="its stored spec"), semantics),
                semantics=semantics,
                workers=attempt.workers,
                storage=self.settings.storage_root,
                tracking_uri=self.settings.mlflow_tracking_uri,
                data_roots=tuple(map(str, self.settings.data_roots)),
                allow_download=self.settings.allow_download,
                hang_seconds=self.settings.hang_seconds,
                traceparent=row.traceparent,
                probe=_probe_of(row, semantics),
                gang=attempt.gang,
            )
        )

    def _sound(self, rows: dict[str, Experiment]) -> list[Waiting]:
        """Those of the queue whose stored specs can be read; the others end here."""
        read = [(row, *load_scheduling_spec(row.spec)) for row in rows.values()]
        for row, _, damage in read:
            if damage:
                self._refuse(row, Move(State.FAILED, Reason.USER_ERROR, damage))
        exceeded = self.disk_quota.exceeded({row.owner for row in rows.values()})
        return [_waiting(row, stored, exceeded) for row, stored, damage in read if not damage]

    def _refuse_unweighable(self, world: World, rows: dict[str, Experiment]) -> bool:
        """Fail the experiments that admission cannot weigh even alone. Returns whether there are any."""
        queue, _, nodes = world
        found = False
        for item in queue:
            try:
                choose([item], [], nodes, self.rules)
            except Exception as error:
                found = True
                log.exception("cannot be weighed", extra={"experiment_id": item.id})
                told = f"admission cannot weigh what it needs: {type(error).__name__}: {error}"
                self._refuse(rows[item.id], Move(State.FAILED, Reason.USER_ERROR, told))
        return found

    def _refuse(self, row: Experiment, move: Move) -> None:
        try:
            self.store.apply(row, move)
        except StaleMove:
            return
        log.warning("cannot start: %s", move.message, extra={"experiment_id": row.id, "reason": move.reason})
        self.report.moved(row, None, move)

    def _start(self, row: Experiment, need: Need) -> GangKey | None:
        key = GangKey(row.id, row.attempt + 1)
        gang = self.cluster.gang_for(key, need)
        try:
            attempt = self.store.claim(row, need.workers, gang=gang)
        except StaleMove:
            self.cluster.release(key)
            return None
        except Exception:  # the database is away: the experiment may be gone when it is back, and would keep the gang
            self.cluster.release(key)
            raise
        log.info("starts with %s worker(s)", need.workers, extra={"experiment_id": row.id, "attempt": attempt.number})
        self.report.claimed(row, attempt)
        try:
            self.launch(row, attempt)
        except SpecError:  # at the next tick, the dispatcher says so of the attempt
            return None
        return key

    def _tell(self, choice: Choice, rows: dict[str, Experiment]) -> None:
        """Write beside those that wait what they wait for, where that is news."""
        outdated = (None, Reason.UNSCHEDULABLE)  # any other reason is why its last attempt ended
        silence = {name: "" for name in choice.waits if rows[name].reason in outdated}
        unschedulable = choice.never | choice.forbidden
        for reason, texts in ((Reason.UNSCHEDULABLE, unschedulable), (None, choice.over_quota | silence)):
            news = {name: text for name, text in texts.items() if rows[name].message != text}
            if news:
                self.store.note_waiting(reason, news)
        if choice.passed:
            self.store.note_passed(choice.passed)


def _probe_of(row: Experiment, semantics: Semantics) -> Probe | None:
    """What it is measured against, where it is a probe of cost. Raises SpecError where that cannot be read."""
    if row.probed_against is None:
        return None
    return Probe(as_meant(make_spec(row.probed_against, source="the stored spec of its control"), semantics))


def _waiting(row: Experiment, stored: SchedulingSpec, exceeded: Mapping[str, str]) -> Waiting:
    """As admission weighs it. What has begun goes on, however much its owner keeps: its files are there already."""
    return Waiting(
        id=row.id,
        sizes=stored.sizes,
        cpus=stored.resources.cpus_per_worker,
        gpus=stored.resources.gpus_per_worker,
        priority=row.priority,
        owner=row.owner,
        queued_at=row.queued_at.timestamp(),
        passed=row.passed,
        held_back=exceeded.get(row.owner, "") if row.attempt == 0 else "",
    )


def _holding(row: Experiment, attempt: Attempt, view: ClusterView) -> Holding:
    seen = view.gangs.get(GangKey(row.id, attempt.number))
    stored, _ = load_scheduling_spec(row.spec)
    return Holding(
        id=row.id,
        need=Need(attempt.workers, stored.resources.cpus_per_worker, stored.resources.gpus_per_worker),
        owner=row.owner,
        priority=row.priority,
        preemptible=stored.preemptible and row.state == State.RUNNING,
        yielding=row.desired == Desired.YIELD or row.state in (State.PAUSING, State.CANCELLING),
        started_at=attempt.started_at.timestamp(),
        placed=seen.placed if seen else {},
    )


def _free_nodes(view: ClusterView, holding: list[Holding]) -> tuple[Node, ...]:
    """The nodes less what claimed gangs will take that the cluster has not placed yet."""
    nodes = view.nodes
    for one in holding:
        if not one.placed:
            left = pack(one.need, nodes)
            nodes = left or tuple(Node(node.id, node.cpus, node.gpus, 0.0, 0.0) for node in nodes)
    return nodes
