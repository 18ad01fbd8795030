"""RayCluster: a gang is one placement group and one detached, named TrainWorker actor per bundle.

All calls of Ray are made in one thread of its own, because a head that is away makes them block. The dispatcher talks
to a table under a lock; when the thread has not come round for a while, `observe` says that nothing is known.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError
from ray.util import (
    get_placement_group,
    list_named_actors,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from service.errors import ClusterUnavailable
from service.gang import ClusterView, GangKey, GangView, Launch, Node, StopMode
from service.settings import Settings
from service.states import Liveness, Reason
from workers.actor import TrainWorker
from workers.assignment import Assignment
from workers.progress import Progress

log = logging.getLogger(__name__)

ROUND_SECONDS = 0.05
IDLE_ROUND_SECONDS = 0.5  # without gangs there is nothing to hurry for; a new one ends the pause
POLL_SECONDS = 0.25
SILENT_SECONDS = 30.0  # a worker that has not answered for so long is neither alive nor dead
STALE_SECONDS = 5.0
RECONNECT_SECONDS = 2.0


class RayCluster:
    """The Ray cluster at `settings.ray_address`, in a namespace of its own."""

    def __init__(self, settings: Settings) -> None:
        self.address = settings.ray_address
        self.namespace = settings.ray_namespace
        self.lock = threading.Lock()
        self.gangs: dict[GangKey, _Gang] = {}
        self.nodes: tuple[Node, ...] = ()
        self.rounded_at = 0.0
        self.trouble = "not connected yet"
        self.closing = threading.Event()
        self.wake = threading.Event()
        self.thread = threading.Thread(target=self._loop, name="ray", daemon=True)
        self.thread.start()

    def observe(self) -> ClusterView:
        """Look at the table. Raises ClusterUnavailable where the thread has not come round lately."""
        with self.lock:
            if time.monotonic() - self.rounded_at > STALE_SECONDS:
                raise ClusterUnavailable(self.trouble)
            return ClusterView(self.nodes, {key: gang.view for key, gang in self.gangs.items()})

    def start(self, launch: Launch) -> None:
        """Put the gang into the table; the thread reserves and starts it, or what is missing of it."""
        with self.lock:
            gang = self.gangs.setdefault(launch.key, _Gang(launch.key, self.namespace))
            gang.launch = gang.launch or launch
        self.wake.set()

    def stop(self, key: GangKey, mode: StopMode) -> None:
        """Have the thread ask the workers to end."""
        with self.lock:
            if gang := self.gangs.get(key):
                gang.stop_mode = mode

    def release(self, key: GangKey) -> None:
        """Have the thread kill the workers and free the reservation."""
        with self.lock:
            if gang := self.gangs.get(key):
                gang.releasing = True

    def close(self) -> None:
        """Disconnect. Detached actors go on."""
        self.closing.set()
        self.wake.set()
        self.thread.join(timeout=STALE_SECONDS)
        if not self.thread.is_alive():
            ray.shutdown()

    def _loop(self) -> None:
        while not self.closing.is_set():
            try:
                self._connect()
                self._round()
                pause = ROUND_SECONDS if self.gangs else IDLE_ROUND_SECONDS
            except Exception as error:  # the thread must outlive whatever Ray raises
                log.warning("Ray at %s: %s", self.address, error)
                self.trouble = f"Ray at {self.address}: {error}"
                pause = RECONNECT_SECONDS
            self.wake.wait(pause)
            self.wake.clear()

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        if not self.address:
            raise ClusterUnavailable("RAY_ADDRESS is not set")
        ray.init(
            address=self.address,
            namespace=self.namespace,
            log_to_driver=False,
            configure_logging=False,
        )
        log.info("connected to Ray at %s", self.address)

    def _round(self) -> None:
        """Bring every gang forward, adopt those that a dispatcher before left, forget what is gone."""
        groups = _placement_groups(self.namespace)
        with self.lock:
            for key, group in groups.items():
                if key not in self.gangs and group["state"] != "REMOVED":
                    self.gangs[key] = _Gang(key, self.namespace)
            gangs = dict(self.gangs)
        for key, gang in gangs.items():
            gang.advance(groups.get(key))
        nodes = _nodes(groups)
        with self.lock:
            for key, gang in gangs.items():
                if gang.gone:
                    del self.gangs[key]
            self.nodes = nodes
            self.rounded_at = time.monotonic()


class _Gang:
    """One gang, brought forward by one step at a time; no step waits."""

    def __init__(self, key: GangKey, namespace: str) -> None:
        self.key = key
        self.namespace = namespace
        self.launch: Launch | None = None  # None: found on the cluster, started by a dispatcher before this one
        self.stop_mode: StopMode | None = None
        self.releasing = False
        self.gone = False
        self.view = GangView(liveness=Liveness.UNKNOWN)
        self.group: Any = None
        self.ranks: list[_Rank] = []
        self.address: Any = None  # reference to rank 0's answer: where the gang meets
        self.begun: list[Any] | None = None  # references to the workers' answers to `start`
        self.stop_sent = False

    def advance(self, group: Mapping[str, Any] | None) -> None:
        """One step. `group` is the row of the cluster's table of placement groups, or None."""
        if self.releasing:
            self._release(group)
        elif group is None:
            self._reserve()
        elif group["state"] == "RESCHEDULING" or not self._staff(group):
            self._dead(Reason.NODE_LOST if group["state"] == "RESCHEDULING" else Reason.WORKER_DIED, "a worker is gone")
        elif self.ranks:
            self._begin()
            self._pass_on_stop()
            self._poll(group)

    def _name(self, rank: int) -> str:
        return f"{self.key}-r{rank}"

    def _reserve(self) -> None:
        """Ask for the bundles, all or none."""
        if self.group is not None:
            if self.ranks:  # it was there, and the cluster does not know it any more
                self._dead(Reason.CLUSTER_LOST, "the placement group is gone")
            return
        if self.launch is None:
            self.gone = True
            return
        need = self.launch.spec.resources
        bundle = {"CPU": float(need.cpus_per_worker)}
        if need.gpus_per_worker:
            bundle["GPU"] = float(need.gpus_per_worker)
        self.group = placement_group(
            [bundle] * need.workers, strategy="PACK", name=f"{self.namespace}/{self.key}", lifetime="detached"
        )

    def _staff(self, group: Mapping[str, Any]) -> bool:
        """Have one actor per bundle: found by name, else made. False where one of a started gang is missing."""
        if self.ranks or group["state"] != "CREATED":
            return True
        self.group = self.group or get_placement_group(group["name"])
        bundles = group["bundles"]
        if self.launch is None:
            present = set(list_named_actors())
            names = [self._name(rank) for rank in range(len(bundles))]
            if not present.issuperset(names):
                return False
            self.ranks = [_Rank(ray.get_actor(name, namespace=self.namespace)) for name in names]
            return True
        self.ranks = [_Rank(self._actor(rank, bundle)) for rank, bundle in enumerate(bundles.values())]
        self.address = self.ranks[0].actor.address.remote()
        return True

    def _actor(self, rank: int, bundle: Mapping[str, float]) -> Any:
        place = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=rank)
        options = ray.remote(TrainWorker).options(
            name=self._name(rank),
            namespace=self.namespace,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=0,
            num_cpus=bundle.get("CPU", 0),
            num_gpus=bundle.get("GPU", 0),
            scheduling_strategy=place,
        )
        return options.remote()

    def _begin(self) -> None:
        """Once rank 0 has said where to meet, tell every worker to train. A worker that trains already ignores it."""
        if self.launch is None or self.begun is not None:
            return
        if self.address is None:  # an adopted gang of which it is not known whether it was told
            self.address = self.ranks[0].actor.address.remote()
        if not _is_ready(self.address):
            return
        try:
            host, port = ray.get(self.address)
        except RayError as error:
            self._dead(Reason.WORKER_DIED, f"a worker did not start: {error}")
            return
        launch, workers = self.launch, len(self.ranks)
        self.begun = [
            rank.actor.start.remote(_assignment(launch, number, workers, host, port).to_dict())
            for number, rank in enumerate(self.ranks)
        ]

    def _pass_on_stop(self) -> None:
        if self.stop_mode is not None and not self.stop_sent:
            for rank in self.ranks:
                rank.actor.stop.remote(self.stop_mode)
            self.stop_sent = True

    def _poll(self, group: Mapping[str, Any]) -> None:
        """Ask every worker how far it is, and take the answers that have come."""
        for rank in self.ranks:
            rank.poll()
        dead = next((rank.died for rank in self.ranks if rank.died), None)
        nodes = tuple(sorted(set(group["bundles_to_node_id"].values())))
        if dead is not None:
            self._dead(Reason.WORKER_DIED, dead, nodes)
            return
        silent = any(rank.is_silent() for rank in self.ranks)
        progress = self.ranks[0].progress
        if all(rank.ended for rank in self.ranks):
            progress = replace(progress, phase="ended")
        self.view = GangView(liveness=Liveness.UNKNOWN if silent else Liveness.ALIVE, progress=progress, node_ids=nodes)

    def _dead(self, reason: Reason, message: str, nodes: tuple[str, ...] = ()) -> None:
        self.view = replace(
            self.view,
            liveness=Liveness.DEAD,
            reason=reason,
            message=message.strip().splitlines()[0],
            node_ids=nodes or self.view.node_ids,
        )

    def _release(self, group: Mapping[str, Any] | None) -> None:
        """Kill, free, and be gone once the cluster shows neither an actor nor a reservation."""
        prefix = f"{self.key}-r"
        names = [name for name in list_named_actors() if name.startswith(prefix)]
        for name in names:
            try:
                ray.kill(ray.get_actor(name, namespace=self.namespace), no_restart=True)
            except ValueError:
                continue  # it ended between the list and the kill
        if group is not None and group["state"] != "REMOVED":
            remove_placement_group(get_placement_group(group["name"]))
        elif not names:
            self.gone = True


class _Rank:
    """One worker, polled without waiting for it."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.question: Any = None
        self.asked_at = 0.0
        self.progress = Progress()
        self.ended = False
        self.died: str | None = None

    def poll(self) -> None:
        """Take the answer if it has come; ask again when it is time."""
        now = time.monotonic()
        if self.question is not None and _is_ready(self.question):
            try:
                answer = ray.get(self.question)
                self.progress = Progress.from_dict(answer["progress"])
                self.ended = answer["outcome"] is not None
            except ActorUnavailableError:
                log.debug("a worker does not answer at present")
            except RayActorError as error:
                self.died = str(error)
            self.question = None
        if self.question is None and now - self.asked_at >= POLL_SECONDS:
            self.question, self.asked_at = self.actor.poll.remote(), now

    def is_silent(self) -> bool:
        """Whether it has not answered for so long that nothing can be said of it."""
        return self.question is not None and time.monotonic() - self.asked_at > SILENT_SECONDS


def _assignment(launch: Launch, rank: int, workers: int, host: str, port: int) -> Assignment:
    return Assignment(
        experiment_id=launch.key.experiment_id,
        attempt=launch.key.attempt,
        token=launch.token,
        spec=launch.spec,
        storage=str(launch.storage),
        rank=rank,
        world_size=workers,
        master_address=host,
        master_port=port,
        tracking_uri=launch.tracking_uri,
        data_roots=launch.data_roots,
    )


def _is_ready(reference: Any) -> bool:
    ready, _ = ray.wait([reference], timeout=0)
    return bool(ready)


def _placement_groups(namespace: str) -> dict[GangKey, dict[str, Any]]:
    """The rows of our placement groups. A removed group keeps its row for a while."""

    groups: dict[GangKey, dict[str, Any]] = {}
    for row in placement_group_table().values():
        owner, _, name = row["name"].rpartition("/")
        key = GangKey.parse(name) if owner == namespace else None
        if key is not None:
            groups[key] = row
    return groups


def _nodes(groups: Mapping[GangKey, Mapping[str, Any]]) -> tuple[Node, ...]:
    """The living nodes, less what our placement groups hold on each."""

    held: dict[str, list[float]] = {}
    for group in groups.values():
        if group["state"] == "REMOVED":
            continue
        for index, node_id in group["bundles_to_node_id"].items():
            bundle = group["bundles"][index]
            cpus, gpus = held.get(node_id, [0.0, 0.0])
            held[node_id] = [cpus + bundle.get("CPU", 0), gpus + bundle.get("GPU", 0)]
    nodes = []
    for node in ray.nodes():
        if node["Alive"]:
            cpus, gpus = node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)
            used = held.get(node["NodeID"], [0.0, 0.0])
            nodes.append(Node(node["NodeID"], cpus, gpus, max(0.0, cpus - used[0]), max(0.0, gpus - used[1])))
    return tuple(nodes)
