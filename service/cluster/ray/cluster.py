"""RayCluster: where gangs run, seen through Ray.

All calls of Ray are made in one thread of its own, because a head that is away makes them block. The dispatcher talks
to a table under a lock; when the thread has not come round for a while, `observe` says that nothing is known.
"""

import importlib.util
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.autoscaler.sdk import request_resources
from ray.util import placement_group_table

from service.cluster.base import ClusterView, GangKey, GangView, Launch, Need, Node, StopMode
from service.cluster.packing import capacity, pack
from service.cluster.ray.free_resources import ForeignUsage, fits, foreign_usage, free_nodes
from service.cluster.ray.gang import RayGang
from service.cluster.ray.standby import STANDBY_NEED, Standby
from service.domain.states import Liveness
from service.errors import ClusterUnavailable
from service.settings import Settings
from workers.protocol.code_version import code_fingerprint

log = logging.getLogger(__name__)

ROUND_SECONDS = 0.05
LOOK_SECONDS = 0.5  # the tables of nodes and reservations are read as rarely as this where no gang comes or goes
IDLE_ROUND_SECONDS = 0.5  # where nothing has to be looked for; news of a worker, or a new gang, ends the pause
STALE_SECONDS = 5.0
ROOM_SECONDS = 2.0  # a gang that waits for longer gets the room of all idle ones: Ray sees less room than we do
RECONNECT_SECONDS = 2.0


class RayCluster:
    """The Ray cluster at `settings.ray_address`, in a namespace of its own."""

    def __init__(self, settings: Settings) -> None:
        self.address = settings.ray_address
        self.runtime_env = shipped_code() if settings.ship_code else None
        self.namespace = settings.ray_namespace
        code_fingerprint()  # of what this process runs: the files may become others while it does
        self.lock = threading.Lock()
        self.linger_seconds = settings.linger_seconds
        self.standby = Standby(settings.standby_workers, settings.standby_pause_seconds)
        self.gangs: dict[str, RayGang] = {}
        self.pending_launches: dict[GangKey, Launch] = {}  # launches that have no gang yet
        self.promised: dict[GangKey, str] = {}  # the names of the gangs that attempts without one will have
        self.expected: Mapping[str, GangKey] | None = None  # whose each gang is by the rows; None until it is said
        self.nodes: list[dict[str, Any]] = []  # the cluster's tables, as last read
        self.groups: dict[str, dict[str, Any]] = {}
        self.looked_at = 0.0
        self.wanted: tuple[Need, ...] | None = None  # what waits; None until the dispatcher has said it
        self.told: list[Need] | None = None  # what the autoscaler was asked for; None where another may have asked
        self.others = ForeignUsage()
        self.rounded_at = 0.0
        self.leads_until = 0.0
        self.term = 0  # counts the times that all was forgotten
        self.trouble = "not connected yet"
        self.closing = threading.Event()
        self.wake = threading.Event()
        self.news = threading.Event()
        self.thread = threading.Thread(target=self._loop, name="ray", daemon=True)
        self.thread.start()

    def lead(self, seconds: float) -> bool:
        """Let the thread act for so long, by a clock that goes on while this process is stopped."""
        with self.lock:
            unbroken = self._leads()
            if not unbroken:
                self._forget()
            self.leads_until = time.monotonic() + seconds
        self.wake.set()
        return unbroken

    def _leads(self, term: int | None = None) -> bool:
        """Whether it may act, and, given a term, has been allowed to ever since that began."""
        return time.monotonic() < self.leads_until and term in (None, self.term)

    def _forget(self) -> None:
        """Another dispatcher may have led meanwhile: what gangs there are, and what they do, is to be seen anew."""
        self.gangs, self.pending_launches, self.groups = {}, {}, {}
        self.promised, self.expected = {}, None
        self.term += 1
        self.looked_at = self.rounded_at = 0.0
        self.told = None

    def observe(self) -> ClusterView:
        """Look at the table. Raises ClusterUnavailable where the thread has not come round lately, or must still learn
        which attempts the gangs run that a dispatcher before this one left.
        """
        with self.lock:
            if time.monotonic() - self.rounded_at > STALE_SECONDS:
                raise ClusterUnavailable(self.trouble)
            if any(not gang.known for gang in self.gangs.values()):
                raise ClusterUnavailable("gangs that were left here have not said yet what they do")
            seen = {key: GangView(liveness=Liveness.UNKNOWN) for key in self.pending_launches}
            seen |= {gang.key: gang.view for gang in self.gangs.values() if gang.key}
            return ClusterView(self._free_nodes(), seen)

    def wait(self, seconds: float) -> None:
        """Wait until a gang has begun, ended or died, at most so long."""
        self.news.wait(seconds)
        self.news.clear()

    def expect(self, gangs: Mapping[str, GangKey]) -> None:
        """Remember it for those that were left here and do not answer."""
        with self.lock:
            self.expected = gangs

    def gang_for(self, key: GangKey, need: Need) -> str:
        """One of its shape that has ended or is about to, and is nobody else's; else a new one, by its own name."""
        with self.lock:
            return self._promise(key, need)

    def _promise(self, key: GangKey, need: Need) -> str:
        if key not in self.promised:
            taken = self.promised.values()
            ended = [gang for gang in self.gangs.values() if gang.lends_its_place and gang.name not in taken]
            fitting = (gang for gang in ended if gang.need == need)
            alike = sorted(fitting, key=lambda gang: (not gang.idle, not gang.has_answered))
            self.promised[key] = alike[0].name if alike else str(key)
        return self.promised[key]

    def start(self, launch: Launch) -> None:
        """Give the launch to the gang that has it already, to the one that was chosen for it, or to a new one."""
        with self.lock:
            gang = self._of(launch.key)
            if gang is None:
                self.promised[launch.key] = launch.gang or self._promise(launch.key, launch.need)
                self.pending_launches.setdefault(
                    launch.key, launch
                )  # the thread alone gives it a gang: it may be in use there
            elif gang.launch is None:
                gang.take(launch)
        self.wake.set()

    def stop(self, key: GangKey, mode: StopMode) -> None:
        """Have the thread ask the workers to end."""
        with self.lock:
            if gang := self._of(key):
                gang.stop_mode = mode
        self.wake.set()

    def dump_stacks(self, key: GangKey) -> None:
        """Have the thread ask the workers for it."""
        with self.lock:
            if gang := self._of(key):
                gang.dump_wanted = True
        self.wake.set()

    def ask_for(self, gangs: Sequence[Need]) -> None:
        """Have the thread tell the autoscaler, where what waits has changed."""
        with self.lock:
            self.wanted = tuple(gangs)

    def release(self, key: GangKey, *, linger: bool = False) -> None:
        """Have the thread kill the workers and free the reservation, or let them wait for another attempt."""
        with self.lock:
            self.pending_launches.pop(key, None)
            self.promised.pop(key, None)
            gang = self._of(key)
            if gang is None or gang.letting_go_since is not None:
                return
            if linger and self.linger_seconds > 0 and gang.runs_our_code:
                gang.letting_go_since = time.monotonic()
            else:
                gang.releasing = True
        self.wake.set()

    def _of(self, key: GangKey) -> RayGang | None:
        return next((gang for gang in self.gangs.values() if gang.key == key), None)

    def _free_nodes(self) -> tuple[Node, ...]:
        """The nodes, less what gangs hold that train: whoever lingers, or is about to, makes room when asked."""
        held = [row for name, row in self.groups.items() if name in self.gangs and not self.gangs[name].lends_its_place]
        return free_nodes(self.nodes, held, self.others.held)

    def _settle_heirs(self) -> None:
        """Each launch takes the gang it was promised, waits until it is idle, or gets a new one instead."""
        for key, launch in list(self.pending_launches.items()):
            gang = self.gangs.get(self.promised[key])
            if gang is None or not gang.lends_its_place or gang.need != launch.need:
                on_one = launch.need.workers > 1 and fits([], self._room(), on_one=[launch.need])
                self.gangs[str(key)] = self._gang(str(key), launch=launch, on_one_node=on_one)
            elif gang.idle:
                gang.take(launch)
            else:
                continue
            del self.pending_launches[key], self.promised[key]

    def _gang(self, name: str, *, launch: Launch | None = None, on_one_node: bool = False) -> RayGang:
        return RayGang(name, self.namespace, launch=launch, on_one_node=on_one_node, on_news=self.wake.set)

    def _room(self) -> tuple[Node, ...]:
        """What is free for a new gang: less what those will take that still wait for their place."""
        nodes = self._free_nodes()
        for gang in self.gangs.values():
            if gang.need and gang.waits_for_room(self.groups.get(gang.name)):
                nodes = pack(gang.need, nodes) or nodes
        return nodes

    def _holder(self, name: str) -> GangKey | None:
        """Whose gang this is by the rows, and else by its name; None until the dispatcher has said what the rows say.

        An attempt whose warm gang went before it could begin has got one of its own name, and no other.
        """
        if self.expected is None:
            return None
        key = self.expected.get(name)
        return key if key and (str(key) == name or str(key) not in self.gangs) else GangKey.parse(name)

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
                if not self._leads():  # a dispatcher that waits for its turn only stays connected
                    self.wake.wait(IDLE_ROUND_SECONDS)
                    self.wake.clear()
                    continue
                began = time.monotonic()
                self._round()
                took = time.monotonic() - began
                self.closing.wait(min(ROUND_SECONDS, 10 * took))  # of many gangs there are news all the time
                pause = ROUND_SECONDS if self._is_busy() else IDLE_ROUND_SECONDS
            except Exception as error:  # the thread must outlive whatever Ray raises
                log.warning("Ray at %s: %s", self.address, error)
                self.trouble = f"Ray at {self.address}: {error}"
                self.closing.wait(RECONNECT_SECONDS)
                continue
            self.wake.wait(pause)
            self.wake.clear()

    def _is_busy(self) -> bool:
        with self.lock:
            return bool(self.pending_launches) or any(not gang.settled for gang in self.gangs.values())

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        if not self.address:
            raise ClusterUnavailable("RAY_ADDRESS is not set")
        ray.init(
            address=self.address,
            namespace=self.namespace,
            runtime_env=self.runtime_env,
            log_to_driver=False,
            configure_logging=False,
        )
        log.info("connected to Ray at %s", self.address)

    def _round(self) -> None:
        """Bring every gang forward, adopt those that a dispatcher before left, forget what is gone."""
        term = self.term
        with self.lock:
            self._settle_heirs()
        self._look()
        with self.lock:
            if not self._leads(term):
                return
            self._retire_idle()
            self._stand_by()
            gangs = dict(self.gangs)
            for name, gang in gangs.items():
                if not gang.known:
                    gang.holder = self._holder(name)
        for name, gang in gangs.items():
            if not self._leads(term):
                return
            before, was_idle = gang.headline, gang.idle
            try:
                gang.advance(self.groups.get(name))
            except ray.exceptions.RaySystemError:  # the connection itself: nothing can be done for any gang
                raise
            except Exception:  # one gang that cannot be brought forward must not hold up the others
                log.exception("gang %s cannot be brought forward", name)
            if was_idle and gang.releasing:  # it has died, or does not answer any more
                self.standby.died()
            if gang.headline != before:
                self.news.set()
                self.wake.set()  # an heir may wait for it
        self._tell_autoscaler(term)
        with self.lock:
            if not self._leads(term):
                return
            for name, gang in gangs.items():
                if gang.gone:
                    del self.gangs[name]
            self.rounded_at = time.monotonic()

    def _look(self) -> None:
        """Read the tables anew where a gang waits for what stands in them, or it is time; adopt what was left here."""
        now = time.monotonic()
        with self.lock:
            settled = all(gang.settled for gang in self.gangs.values())
        if settled and now - self.looked_at < LOOK_SECONDS:
            return
        groups = _placement_groups(self.namespace)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        available = available_resources_per_node()
        with self.lock:
            self.groups, self.nodes, self.looked_at = groups, nodes, now
            self.others.look(foreign_usage(free_nodes(nodes, groups.values()), available), now)
            for name, group in groups.items():
                if name not in self.gangs and group["state"] != "REMOVED":
                    self.gangs[name] = self._gang(name)

    def _tell_autoscaler(self, term: int) -> None:
        """Ask for what runs and what waits: a request stands until the next one, and an autoscaler fills all of it."""
        with self.lock:
            if self.wanted is None or not self._leads(term):
                return
            running = [gang.need for gang in self.gangs.values() if gang.need and not gang.idle]
            # Where nothing waits, nothing is asked for: what runs holds its nodes by itself.
            needs = [*running, *self.wanted] if self.wanted else []
        if needs == self.told:
            return
        bundles = [
            {"CPU": need.cpus} | ({"GPU": need.gpus} if need.gpus else {})
            for need in needs
            for _ in range(need.workers)
        ]
        request_resources(bundles=bundles)
        with self.lock:
            self.told = needs if term == self.term else None

    def _retire_idle(self) -> None:
        """Idle gangs make room for those that wait for it, as many as it takes, and do not linger for ever."""
        idle = [gang for gang in self.gangs.values() if gang.idle and gang.name in self.groups]
        if not idle:
            return
        now = time.monotonic()
        waiting = [gang for gang in self.gangs.values() if gang.waits_for_room(self.groups.get(gang.name))]
        late = any(now - gang.begun_at > ROOM_SECONDS for gang in waiting)
        needs = [gang.need for gang in waiting if gang.need and not gang.on_one_node]
        on_one = [gang.need for gang in waiting if gang.need and gang.on_one_node]
        goes_on = [gang for gang in self.gangs.values() if not (gang.idle or gang.releasing or gang in waiting)]
        held = [self.groups[gang.name] for gang in goes_on if gang.name in self.groups]
        kept = self.standby.kept(idle)
        for gang in sorted(idle, key=lambda gang: gang.idle_for(now)):  # who has waited longest goes first
            held_with_it = [*held, self.groups[gang.name]]
            enough = fits(needs, free_nodes(self.nodes, held_with_it, self.others.held), on_one=on_one)
            if late or not enough or (gang.idle_for(now) > self.linger_seconds and gang not in kept):
                gang.releasing = True
            else:
                held = held_with_it

    def _stand_by(self) -> None:
        """Start a worker for the next experiment, where nobody waits for the room who could ever have it."""
        if not self.standby.workers:
            return
        nodes = free_nodes(self.nodes, self.groups.values(), self.others.held)
        if (
            self.pending_launches
            or self.wanted is None
            or any(capacity(nodes, need) >= need.workers for need in self.wanted)
        ):
            return
        if name := self.standby.next(self.gangs.values(), nodes):
            self.gangs[name] = RayGang(name, self.namespace, standby=STANDBY_NEED, on_news=self.wake.set)


def shipped_code() -> dict[str, Any]:
    """A runtime environment that brings what workers import of ours; torch and the rest must be in their image."""
    specs = [importlib.util.find_spec(name) for name in ("cbam_core", "workers")]
    return {"py_modules": [folder for spec in specs if spec for folder in spec.submodule_search_locations or ()]}


def _placement_groups(namespace: str) -> dict[str, dict[str, Any]]:
    """The rows of our placement groups by gang name. A removed group keeps its row for a while."""
    groups: dict[str, dict[str, Any]] = {}
    for row in placement_group_table().values():
        owner, _, name = row["name"].rpartition("/")
        if owner == namespace and GangKey.parse(name) and (row["state"] != "REMOVED" or name not in groups):
            groups[name] = row
    return groups
