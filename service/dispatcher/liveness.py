"""Liveness of one attempt: whether its gang still lives and, where it has left no record, why it is over."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from service.cluster.base import Cluster, GangKey, GangView, StopMode
from service.database.models.experiments import Experiment
from service.domain.states import Liveness, Reason, State
from service.settings import Settings
from workers.protocol.outcome import Outcome
from workers.protocol.progress import hang_timeout_seconds

STACKS_SECONDS = 3.0
PAUSE_GRACE_SECONDS = 300.0  # a checkpoint of a large network takes its time; without it the last one is used


@dataclass
class AttemptMemory:
    """What the dispatcher remembers of one attempt between ticks. All of it may be lost without harm."""

    launched: bool = False
    dead_since: float | None = None
    dead_looks: int = 0
    stop_sent: StopMode | None = None
    stop_sent_at: float = 0.0
    moved_at: float | None = None  # when it last gave a sign of life
    sign_of_life: tuple[object, ...] = ()
    stacks_asked_at: float | None = None
    told: Outcome | None = None  # how it ended by the word of its workers; a full disk takes no record
    cause: Reason | None = None  # why it is over; the first cause stands, the rest is its consequence
    failed_since: float | None = None
    written: dict[str, object] | None = None
    placed: Mapping[str, int] = field(default_factory=dict)
    looked_at: float | None = None  # when it was last looked at, with the cluster in sight
    seen_seconds: float = 0.0  # for how long it has been looked at, over all: a start is given so much and no more

    def lose_sight(self) -> None:
        """The cluster cannot be seen: none of this time is held against the gang, and no clock runs on over it."""
        self.looked_at = self.moved_at = self.dead_since = self.stop_sent = None
        self.dead_looks = 0


class LivenessMonitor:
    """Judges what is seen of a gang against what was seen before; it writes nothing and ends nothing."""

    def __init__(self, cluster: Cluster, settings: Settings, clock: Callable[[], float]) -> None:
        self.cluster = cluster
        self.settings = settings
        self.clock = clock

    def has_let_go(self, watch: AttemptMemory, seen: GangView, record: Outcome) -> bool:
        """Whether the gang may be killed. A failure is recorded first and tracked after; for that there is a grace."""
        if record.outcome != "failed" or seen.liveness is Liveness.DEAD or seen.progress.phase == "ended":
            return True
        watch.failed_since = self.clock() if watch.failed_since is None else watch.failed_since
        return self.clock() - watch.failed_since > self.settings.cancel_grace_seconds

    def cause_of_end(self, row: Experiment, watch: AttemptMemory, seen: GangView, *, batch_size: int) -> Reason | None:
        """Why an attempt without a record is over, or None while it is not.

        A gang that does not answer (UNKNOWN) is neither dead nor hung. What ends it nevertheless is a wish whose grace
        has passed, or that it has not come to its first step in all the time that it may take.
        """
        now = self.clock()
        watch.seen_seconds += 0.0 if watch.looked_at is None else now - watch.looked_at
        watch.looked_at = now
        if seen.liveness is Liveness.DEAD:
            watch.dead_since = now if watch.dead_since is None else watch.dead_since
            watch.dead_looks += 1
            long_enough = now - watch.dead_since >= self.settings.dead_after_seconds
            if long_enough and watch.dead_looks >= self.settings.dead_after_looks:
                return seen.reason or Reason.WORKER_DIED
        elif seen.liveness is Liveness.ALIVE:
            watch.dead_since, watch.dead_looks = None, 0
        if watch.stop_sent is not None:
            cancels = row.state == State.CANCELLING
            grace = self.settings.cancel_grace_seconds if cancels else PAUSE_GRACE_SECONDS
            if now - watch.stop_sent_at > grace:
                return Reason.CANCELLED_BY_USER if cancels else Reason.WORKER_DIED
        if self._hangs(row, watch, seen, batch_size):
            return Reason.HANG_DETECTED
        starts = row.state == State.STARTING and seen.progress.step == 0
        if starts and watch.seen_seconds > self.settings.start_timeout_seconds:
            return Reason.START_TIMEOUT
        return None

    def _hangs(self, row: Experiment, watch: AttemptMemory, seen: GangView, batch_size: int) -> bool:
        """Whether a gang that answers has made no progress for far longer than a step takes.

        Its stacks are asked for first, and given a moment to be written. Workers watch themselves, with the same
        patience; where they can, they leave a record of it in that moment.
        """
        now, progress = self.clock(), seen.progress
        if seen.liveness is not Liveness.ALIVE:
            watch.moved_at = None
            return False
        sign = (progress.step, progress.phase, progress.heartbeat)
        if watch.moved_at is None or sign != watch.sign_of_life or row.state == State.STARTING:
            watch.moved_at, watch.sign_of_life, watch.stacks_asked_at = now, sign, None
            return False
        patience = hang_timeout_seconds(self.settings.hang_seconds, progress, batch_size)
        if now - watch.moved_at < patience:
            return False
        if watch.stacks_asked_at is None:
            watch.stacks_asked_at = now
            self.cluster.dump_stacks(GangKey(row.id, row.attempt))
        return now - watch.stacks_asked_at >= STACKS_SECONDS
