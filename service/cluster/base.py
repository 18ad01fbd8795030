"""A gang: the workers of one attempt, started and ended together; what the dispatcher says to a cluster and sees."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self

from cbam_core.semantics import CURRENT, Semantics
from cbam_core.spec import ExperimentSpec
from service.domain.states import Liveness, Reason
from workers.protocol.outcome import Outcome
from workers.protocol.probe import Probe
from workers.protocol.progress import Progress

StopMode = Literal["cancel", "pause"]
_NAME = re.compile(r"^(?P<experiment_id>[0-9a-z]+)-(?P<attempt>\d+)$")


@dataclass(frozen=True)
class Need:
    """What a gang occupies: `workers` equal bundles, each on one node."""

    workers: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.workers} × ({self.cpus:g} CPU{gpus})"


@dataclass(frozen=True, order=True)
class GangKey:
    """Which attempt of which experiment. A gang bears the name of the first that it ran."""

    experiment_id: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.experiment_id}-{self.attempt}"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The key in a name, or None where the name is not one of ours."""
        match = _NAME.match(name)
        return cls(match["experiment_id"], int(match["attempt"])) if match else None


@dataclass(frozen=True, kw_only=True)
class Launch:
    """All that a gang needs to train one attempt."""

    key: GangKey
    token: str
    spec: ExperimentSpec
    workers: int  # how many of those the spec allows
    storage: Path
    tracking_uri: str | None
    data_roots: tuple[str, ...] = ()
    allow_download: bool = False
    hang_seconds: float = 300.0
    traceparent: str | None = None  # where its spans belong
    semantics: Semantics = CURRENT
    probe: Probe | None = None  # it trains nothing, and measures what its spec costs
    gang: str | None = None  # the name of the one that was chosen for it; None: the cluster chooses

    @property
    def need(self) -> Need:
        """What it occupies: its shape. Only a gang of the very same shape can take it."""
        resources = self.spec.resources
        return Need(self.workers, resources.cpus_per_worker, resources.gpus_per_worker)


@dataclass(frozen=True)
class Node:
    """One machine of the cluster: what it has and what of it is free."""

    id: str
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    shared: tuple[float, ...] = ()  # what is free of each GPU that small experiments share, a part of `free_gpus`


@dataclass(frozen=True, kw_only=True)
class GangView:
    """What was last seen of a gang."""

    liveness: Liveness
    progress: Progress = field(default_factory=Progress)
    reason: Reason | None = None  # what killed it, where the cluster knows
    message: str = ""
    outcome: Outcome | None = None  # what the workers say once all have ended: counts where no record could be written
    placed: Mapping[str, int] = field(default_factory=dict)  # node id -> workers there; empty until it has its place

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The nodes that hold a part of it."""
        return tuple(sorted(self.placed))


@dataclass(frozen=True)
class ClusterView:
    """One look at the cluster. A gang that is not in it holds nothing: no process, no reservation."""

    nodes: tuple[Node, ...]
    gangs: Mapping[GangKey, GangView]


class Cluster(Protocol):
    """Where gangs run. No call blocks for longer than a moment; every call may be repeated."""

    def lead(self, seconds: float) -> bool:
        """Allow it to start and kill gangs for so long: a dispatcher that was stopped and has lost the lease must not.

        Returns False where that time had run out: then what it was told before is forgotten.
        """
        ...

    def observe(self) -> ClusterView:
        """Look. Raises ClusterUnavailable where nothing is known at present: then nothing may be concluded."""
        ...

    def wait(self, seconds: float) -> None:
        """Return after so long, or as soon as something has happened that is worth a look."""
        ...

    def expect(self, gangs: Mapping[str, GangKey]) -> None:
        """Say which attempt each gang runs by the rows, so that one is known that cannot say so itself."""
        ...

    def gang_for(self, key: GangKey, need: Need) -> str:
        """The name of the gang that the attempt will have: to be written down before it is started.

        It is kept for the attempt until `start` or `release`.
        """
        ...

    def start(self, launch: Launch) -> None:
        """Reserve and start the gang; a gang that is there already is left as it is."""
        ...

    def stop(self, key: GangKey, mode: StopMode) -> None:
        """Ask the workers to end at the next step; `pause` writes a checkpoint first."""
        ...

    def dump_stacks(self, key: GangKey) -> None:
        """Have the workers write into their logs what each of their threads is doing."""
        ...

    def ask_for(self, gangs: Sequence[Need]) -> None:
        """Let the cluster's autoscaler know what waits for room, so that it may grow."""
        ...

    def release(self, key: GangKey, *, linger: bool = False) -> None:
        """Kill what is left of the gang and free what it holds; done when `observe` shows it no more.

        With `linger`, its workers may wait for another attempt of the same shape instead, for as long as nobody needs
        the room: what they hold counts as free.
        """
        ...

    def close(self) -> None:
        """Let go of the cluster. Gangs go on."""
        ...
