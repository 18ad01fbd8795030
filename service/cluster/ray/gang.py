"""One gang on Ray: a placement group and a detached, named TrainWorker actor per bundle, brought forward step by step.

A gang whose attempt ended well lingers, and takes the next attempt of the same shape in a fraction of a cold start. So
a gang bears the name of the first attempt it ran; which attempt it runs now, its workers say, and the attempt's row.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import get_placement_group, list_named_actors, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from service.cluster.base import GangKey, GangView, Launch, Need, StopMode
from service.cluster.ray.rendezvous import WorkerAddress, assignment_of
from service.cluster.ray.worker import SILENT_SECONDS, THREADS, WorkerHandle, ask
from service.domain.states import Liveness, Reason
from workers.actor import TrainWorker
from workers.protocol.code_version import code_fingerprint
from workers.protocol.outcome import Outcome

log = logging.getLogger(__name__)

NEWS_SECONDS = (0.5, 2.0)  # a worker that is asked for news answers after so long where there are none
ONE_NODE_SECONDS = 5.0  # a gang that was to lie on one node waits for it no longer: idle ones have gone by then
FORGOTTEN_SECONDS = 600.0  # a worker that idles and is asked by no dispatcher for so long goes by itself
LET_GO_SECONDS = 10.0  # from the record of a success to the end of every rank


class RayGang:
    """One gang. `advance` makes the next step and never waits."""

    def __init__(
        self,
        name: str,
        namespace: str,
        *,
        launch: Launch | None = None,
        standby: Need | None = None,
        on_one_node: bool = False,
        on_news: Callable[[], None] = lambda: None,
    ) -> None:
        """With `standby` it has a shape, and no attempt yet. `on_news` is called, in any thread, when a worker has
        said something.
        """
        self.name = name
        self.namespace = namespace
        self.on_news = on_news
        self.launch = launch
        self.on_one_node = on_one_node
        self.key = launch.key if launch else None
        self.need = launch.need if launch else standby
        self.was_left = self.need is None  # by a dispatcher before this one
        self.known = not self.was_left  # False: it has not said what it does
        self.holder: GangKey | None = None  # until then: whose it is by the rows, once they have been read
        self.found_at = time.monotonic()
        self.view = GangView(liveness=Liveness.UNKNOWN)
        self.ranks: list[WorkerHandle] = []
        self.releasing = False
        self.gone = False
        self.letting_go_since: float | None = None
        self.idle_since: float | None = self.found_at if standby else None
        self.stop_mode: StopMode | None = None
        self.dump_wanted = False
        self._group: Any = None
        self._places: list[Future[Any]] | None = None  # the workers' answers: where they are
        self._begun = False
        self.begun_at = self.found_at
        self._stop_sent: StopMode | None = None

    @property
    def idle(self) -> bool:
        """Whether it waits for another attempt, and holds its place only until somebody needs the room."""
        return self.idle_since is not None and not self.releasing

    def idle_for(self, now: float) -> float:
        """How many seconds it has been idle for."""
        return now - self.idle_since if self.idle_since is not None else 0.0

    @property
    def lends_its_place(self) -> bool:
        """Whether another attempt can have its place: it is idle, or is about to be."""
        return (self.idle_since or self.letting_go_since) is not None and not self.releasing

    @property
    def has_answered(self) -> bool:
        """Whether all of its workers are there, and have said something."""
        return bool(self.ranks) and all(rank.answered for rank in self.ranks)

    @property
    def runs_our_code(self) -> bool:
        """Whether a gang that was left here runs the code of this dispatcher. Of its own ones that is not asked: what
        they run is what any other would.
        """
        return not self.was_left or (self.has_answered and {rank.code for rank in self.ranks} == {code_fingerprint()})

    @property
    def settled(self) -> bool:
        """Whether nothing in the cluster's tables is waited for: it has its workers, and keeps them."""
        return bool(self.ranks) and self.known and not self.releasing

    def waits_for_room(self, group: Mapping[str, Any] | None) -> bool:
        """Whether it is to begin, and the cluster has no place for it yet."""
        placed = bool(self.ranks) or (group is not None and group["state"] == "CREATED")
        return self.launch is not None and not placed and not self.releasing

    @property
    def headline(self) -> tuple[object, ...]:
        """What the dispatcher should look at as soon as it changes."""
        return self.view.liveness, self.view.outcome is None, self.view.progress.step > 0, self.idle, self.gone

    def take(self, launch: Launch) -> None:
        """Give an idle gang its next attempt, or one that a dispatcher before left the launch it is missing."""
        if self.key != launch.key:
            self.view = GangView(liveness=Liveness.UNKNOWN)
            self.idle_since = self.letting_go_since = None
            if len(self.ranks) > 1:  # they need a port to meet that is free now
                self._places = None
            self._begun, self.begun_at = False, time.monotonic()
            self.stop_mode = self._stop_sent = None
            for rank in self.ranks:
                rank.forget()
        self.key, self.launch, self.need = launch.key, launch, launch.need

    def advance(self, group: Mapping[str, Any] | None) -> None:
        """One step. `group` is the row of the cluster's table of placement groups, or None."""
        if not self.known and time.monotonic() - self.found_at > SILENT_SECONDS:
            self._assume()
        if self.releasing:
            self._release(group)
        elif group is None or (group["state"] == "REMOVED" and not self.ranks):
            self._reserve()
        elif group["state"] == "RESCHEDULING":
            self._assume()
            self._die(Reason.NODE_LOST, "a node of the gang is gone")
        elif self._waits_in_vain(group):
            remove_placement_group(get_placement_group(group["name"]))
            self.on_one_node, self._group = False, None
        elif not self._staff(group):
            self._die(Reason.WORKER_DIED, "a worker of the gang is gone")
        elif self.ranks:
            self._poll(group)
            self._identify()
            self._begin()
            self._pass_on_stop()
            self._let_go()
        useless = self.idle and any((rank.answered and rank.is_silent()) or not rank.is_fit for rank in self.ranks)
        if self.lends_its_place and (useless or self.view.liveness is Liveness.DEAD):
            self.releasing = True  # no attempt is lost with it, and the next one would be

    def _reserve(self) -> None:
        """Ask for the bundles, all or none."""
        if self._group is not None or (self.launch is None and self.was_left):
            if self.ranks:  # it was there, and the cluster does not know it any more
                self._die(Reason.CLUSTER_LOST, "the placement group is gone")
            self.gone = self.key is None and (self.was_left or bool(self.ranks))
            return
        assert self.need is not None
        bundle = {"CPU": float(self.need.cpus)}
        if self.need.gpus:
            bundle["GPU"] = float(self.need.gpus)
        self._group = placement_group(
            [bundle] * self.need.workers,
            strategy="STRICT_PACK" if self.on_one_node else "PACK",
            name=f"{self.namespace}/{self.name}",
            lifetime="detached",
        )

    def _waits_in_vain(self, group: Mapping[str, Any]) -> bool:
        """Whether the one node that had room for all of it has none after all: then several will do."""
        waits = group["state"] == "PENDING" and self.waits_for_room(group) and group["strategy"] == "STRICT_PACK"
        return waits and time.monotonic() - self.begun_at > ONE_NODE_SECONDS

    def _staff(self, group: Mapping[str, Any]) -> bool:
        """Have one actor per bundle: found by name, else made. False where one of a started gang is missing."""
        if self.ranks:
            return True
        if group["state"] != "CREATED":
            self._assume()  # without a place there is no worker who could say
            return True
        self._group = self._group or get_placement_group(group["name"])
        bundles = list(group["bundles"].values())
        if self.launch is None and self.was_left:
            names = [self._actor_name(rank) for rank in range(len(bundles))]
            if not set(list_named_actors()).issuperset(names):
                self._assume()
                return False
            self.ranks = [WorkerHandle(ray.get_actor(name, namespace=self.namespace), self.on_news) for name in names]
            self.need = Need(len(bundles), bundles[0].get("CPU", 0.0), bundles[0].get("GPU", 0.0))
        else:
            self.ranks = [WorkerHandle(self._actor(rank, bundle), self.on_news) for rank, bundle in enumerate(bundles)]
        return True

    def _actor_name(self, rank: int) -> str:
        return f"{self.name}-r{rank}"

    def _actor(self, rank: int, bundle: Mapping[str, float]) -> Any:
        place = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank)
        options = ray.remote(concurrency_groups=THREADS)(TrainWorker).options(  # type: ignore[call-overload]
            name=self._actor_name(rank),
            namespace=self.namespace,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=0,
            num_cpus=bundle.get("CPU", 0),
            num_gpus=bundle.get("GPU", 0),
            scheduling_strategy=place,
        )
        return options.remote(ahead=self.launch is None, patience_seconds=FORGOTTEN_SECONDS)

    def _poll(self, group: Mapping[str, Any]) -> None:
        """Ask every worker how far it is, and take the answers that have come."""
        for rank in self.ranks:
            rank.poll(self.news_seconds())
        placed = Counter(group["bundles_to_node_id"].values())
        if died := next((rank.died for rank in self.ranks if rank.died), None):
            self._die(Reason.WORKER_DIED, died, placed)
            return
        silent = any(rank.is_silent() or (self.was_left and not rank.answered) for rank in self.ranks)
        liveness = Liveness.UNKNOWN if silent else Liveness.ALIVE
        self.view = GangView(liveness=liveness, progress=self.ranks[0].progress, placed=placed)
        outcomes = [rank.outcome for rank in self.ranks if rank.outcome]
        if len(outcomes) == len(self.ranks):
            progress = replace(self.view.progress, phase="ended")
            self.view = replace(self.view, progress=progress, outcome=verdict(outcomes))

    def news_seconds(self) -> float:
        """A twentieth of its age: a short training is seen to come forward, and thousands of long ones are no load."""
        shortest, longest = NEWS_SECONDS
        return min(longest, max(shortest, (time.monotonic() - self.begun_at) / 20))

    def _identify(self) -> None:
        """Learn from the workers which attempt a gang runs that a dispatcher before this one left."""
        if any(rank.died for rank in self.ranks):
            self._assume()
        if self.known or any(not rank.answered for rank in self.ranks):
            return
        self.known = True
        keys = {rank.key for rank in self.ranks}
        if keys == {None} or all(rank.has_succeeded() for rank in self.ranks):
            self.idle_since = time.monotonic()
            self.releasing = any(not rank.is_fit for rank in self.ranks) or not self.runs_our_code
        elif len(keys) == 1:
            self.key = keys.pop()
            self._begun = True
        else:
            self.key = next(key for key in keys if key is not None)
            self._die(Reason.WORKER_DIED, "the gang was left half started")

    def _assume(self) -> None:
        """Not all of a gang's workers can be asked: it runs what one of them has said, else what the rows say."""
        if not self.known:
            said = (rank.key for rank in self.ranks if rank.key)
            self.key = next(said, None) or self.holder
            self.known = self.key is not None

    def _begin(self) -> None:
        """Once every worker has said where it is, tell them all to train."""
        if self.launch is None or self._begun or self.view.liveness is Liveness.DEAD:
            return
        if self._places is None:
            self._places = [ask(rank.actor.place.remote(), self.on_news) for rank in self.ranks]
        if not all(place.done() for place in self._places):
            return
        try:
            places = [WorkerAddress(*place.result()) for place in self._places]
        except RayError as error:
            self._die(Reason.WORKER_DIED, f"a worker did not start: {error}")
            return
        for number, rank in enumerate(self.ranks):
            rank.begin(assignment_of(self.launch, number, places))
        self._begun = True

    def _pass_on_stop(self) -> None:
        if self.dump_wanted:
            for rank in self.ranks:
                rank.actor.dump_stacks.remote()
            self.dump_wanted = False
        if self.stop_mode is not None and self._begun and self._stop_sent != self.stop_mode:
            for rank in self.ranks:
                rank.actor.stop.remote(self.stop_mode)
            self._stop_sent = self.stop_mode

    def _let_go(self) -> None:
        """From the record of a success to idleness: once every rank has ended, and is fit for more."""
        if self.letting_go_since is None:
            return
        if all(rank.has_succeeded() and rank.is_fit for rank in self.ranks):
            self.idle_since = time.monotonic()  # first: it lends its place all the time
            self.key = self.launch = self.letting_go_since = None
        elif time.monotonic() - self.letting_go_since > LET_GO_SECONDS or any(
            rank.outcome and not rank.is_fit for rank in self.ranks
        ):
            self.releasing = True

    def _die(self, reason: Reason, message: str, placed: Mapping[str, int] | None = None) -> None:
        line = message.strip().splitlines()[0]
        placed = placed or self.view.placed
        self.view = replace(self.view, liveness=Liveness.DEAD, reason=reason, message=line, placed=placed)

    def _release(self, group: Mapping[str, Any] | None) -> None:
        """Kill, free, and be gone once the cluster shows neither an actor nor a reservation."""
        names = [name for name in list_named_actors() if name.startswith(f"{self.name}-r")]
        for name in names:
            try:
                ray.kill(ray.get_actor(name, namespace=self.namespace), no_restart=True)
            except ValueError:
                continue  # it ended between the list and the kill
        if group is not None and group["state"] != "REMOVED":
            remove_placement_group(get_placement_group(group["name"]))
        elif not names:
            self.gone = True


def verdict(outcomes: Sequence[Outcome]) -> Outcome:
    """How a gang ended: as the rank says that failed by itself, else any that failed, else rank 0."""
    failed = [one for one in outcomes if one.outcome == "failed"]
    by_itself = (one for one in failed if one.reason != "WORKER_DIED")
    return next(by_itself, (failed or list(outcomes))[0])
