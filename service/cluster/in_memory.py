"""A cluster in memory, for tests of what stands on it."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from service.cluster.base import ClusterView, GangKey, GangView, Launch, Need, Node, StopMode
from service.domain.states import Liveness, Reason
from service.errors import ClusterUnavailable
from workers.protocol.outcome import Ending, Outcome
from workers.protocol.probe import ProbeNumbers
from workers.protocol.progress import Progress
from workers.protocol.storage import ExperimentFolder, make_folder

STEPS_PER_EPOCH = 10


_PROBED = {"probe": ProbeNumbers((100.0, 101.0) * 4, (93.0, 94.0) * 4).to_dict()}


@dataclass
class _FakeGang:
    launch: Launch
    node: str
    step: int = 0
    stop_mode: StopMode | None = None
    died: Reason | None = None
    released: bool = False
    outcome: Outcome | None = None


@dataclass
class InMemoryCluster:
    """A cluster whose gangs make one step at each look, write real result records, and die on request.

    Two dispatchers given the same object see the same gangs, as they would on a real cluster.
    """

    nodes: tuple[Node, ...] = (Node("node-1", 2.0, 0.0, 2.0, 0.0),)
    steps_per_look: int = 1
    reachable: bool = True
    answers: bool = True  # False: its workers do not, and whether they live is unknown
    obeys_stop: bool = True
    writes_records: bool = True  # False: as on a full disk
    export: Callable[[Launch], object] | None = None  # leaves the files of a training that ends well
    metrics: Callable[[Launch], Mapping[str, float]] | None = None  # that a training which ends well reports
    starts: list[GangKey] = field(default_factory=list)
    dumped: list[GangKey] = field(default_factory=list)
    asked_for: tuple[Need, ...] = ()
    expected: Mapping[str, GangKey] = field(default_factory=dict)
    gangs: dict[GangKey, _FakeGang] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def lead(self, seconds: float) -> bool:  # noqa: ARG002 - it does nothing by itself
        """It has no thread of its own that could act too late."""
        return True

    def observe(self) -> ClusterView:
        """Let every gang make its steps, and show them."""
        with self.lock:
            if not self.reachable:
                raise ClusterUnavailable("the fake cluster was told to be away")
            self.gangs = {key: gang for key, gang in self.gangs.items() if not gang.released}
            for gang in self.gangs.values():
                self._work(gang)
            views = {key: self._view(gang) for key, gang in self.gangs.items()}
            return ClusterView(self._free_nodes(), views)

    def wait(self, seconds: float) -> None:
        """Something happens here at every look only, so there is nothing to be early for."""
        time.sleep(seconds)

    def expect(self, gangs: Mapping[str, GangKey]) -> None:
        """Note what was said."""
        self.expected = gangs

    def gang_for(self, key: GangKey, need: Need) -> str:  # noqa: ARG002 - nothing lingers here
        """A new one."""
        return str(key)

    def start(self, launch: Launch) -> None:
        """Start a gang; one that is there already is left as it is."""
        with self.lock:
            if launch.key not in self.gangs:
                self.starts.append(launch.key)
                self.gangs[launch.key] = _FakeGang(launch, self.nodes[0].id)

    def stop(self, key: GangKey, mode: StopMode) -> None:
        """Have the gang end at its next step, where it can be reached and obeys."""
        with self.lock:
            if key in self.gangs and self.obeys_stop and self.reachable:
                self.gangs[key].stop_mode = mode

    def dump_stacks(self, key: GangKey) -> None:
        """Note that it was asked for."""
        self.dumped.append(key)

    def ask_for(self, gangs: Sequence[Need]) -> None:
        """Note what was asked for."""
        self.asked_for = tuple(gangs)

    def release(self, key: GangKey, *, linger: bool = False) -> None:  # noqa: ARG002 - nothing here is worth keeping
        """Kill the gang."""
        with self.lock:
            if key in self.gangs:
                self.gangs[key].released = True

    def close(self) -> None:
        """Nothing to let go of."""

    def kill(self, key: GangKey, reason: Reason = Reason.WORKER_DIED) -> None:
        """Have a worker of the gang die, as kill -9 would."""
        with self.lock:
            self.gangs[key].died = reason

    def forget(self) -> None:
        """Lose every gang, as a head that was started anew has."""
        with self.lock:
            self.gangs.clear()

    def fail(self, key: GangKey, reason: str, message: str = "made to fail") -> None:
        """Have the experiment itself fail, with a record."""
        with self.lock:
            self._end(self.gangs[key], "failed", reason, message)

    def _work(self, gang: _FakeGang) -> None:
        if gang.died or gang.outcome:
            return
        total = gang.launch.spec.train.epochs * STEPS_PER_EPOCH
        gang.step = min(total, gang.step + self.steps_per_look)
        if gang.stop_mode is not None:
            self._end(gang, "paused" if gang.stop_mode == "pause" else "cancelled")
        elif gang.step == total:
            if self.export is not None:
                self.export(gang.launch)
            self._end(gang, "succeeded")

    def _end(self, gang: _FakeGang, ending: Ending, reason: str | None = None, message: str = "") -> None:
        key = gang.launch.key
        outcome = Outcome.from_dict(
            {
                "outcome": ending,
                "reason": reason,
                "message": message,
                "step": gang.step,
                "metrics": self._metrics(gang.launch, ending),
                "attempt": key.attempt,
                "token": gang.launch.token,
                "summary": {"parameters": 1} | (_PROBED if gang.launch.probe and ending == "succeeded" else {}),
            }
        )
        if self.writes_records:
            folder = ExperimentFolder(gang.launch.storage, key.experiment_id).attempt(key.attempt)
            make_folder(folder.path)
            outcome.record(folder)
        gang.outcome = outcome

    def _metrics(self, launch: Launch, ending: Ending) -> dict[str, float]:
        if ending != "succeeded":
            return {"val/top1": 0.5}
        return {"val/top1": 0.5, "test/top1": 0.5} if self.metrics is None else dict(self.metrics(launch))

    def _view(self, gang: _FakeGang) -> GangView:
        placed = {gang.node: gang.launch.workers}
        if gang.died:
            return GangView(liveness=Liveness.DEAD, reason=gang.died, message="killed by the test", placed=placed)
        epochs = gang.launch.spec.train.epochs
        progress = Progress(
            phase="ended" if gang.outcome else "training",
            step=gang.step,
            total_steps=epochs * STEPS_PER_EPOCH,
            epoch=gang.step // STEPS_PER_EPOCH,
            epochs=epochs,
            metrics={"train/loss": 1.0 / (1 + gang.step)},
        )
        liveness = Liveness.ALIVE if self.answers else Liveness.UNKNOWN
        return GangView(liveness=liveness, progress=progress, placed=placed, outcome=gang.outcome)

    def _free_nodes(self) -> tuple[Node, ...]:
        cpus = sum(gang.launch.workers * gang.launch.spec.resources.cpus_per_worker for gang in self.gangs.values())
        first, *others = self.nodes
        return (Node(first.id, first.cpus, first.gpus, first.cpus - cpus, first.free_gpus), *others)
