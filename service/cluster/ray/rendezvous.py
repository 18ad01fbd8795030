"""Where the workers of a gang are, and what that makes of their assignments."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.cluster.base import Launch
from workers.protocol.assignment import Assignment


@dataclass(frozen=True)
class WorkerAddress:
    """Where a worker is: its node's address, a free port there, and its GPUs by the names the driver gives them."""

    host: str
    port: int
    gpus: list[str]


def assignment_of(launch: Launch, rank: int, places: Sequence[WorkerAddress]) -> Assignment:
    """What rank `rank` is told to do: meet at rank 0's place, and see all GPUs of the gang on its node in one order."""
    mine = places[rank]
    node_gpus = tuple(sorted({gpu for place in places if place.host == mine.host for gpu in place.gpus}))
    return Assignment(
        experiment_id=launch.key.experiment_id,
        attempt=launch.key.attempt,
        token=launch.token,
        spec=launch.spec,
        semantics=launch.semantics,
        storage=str(launch.storage),
        rank=rank,
        world_size=len(places),
        master_address=places[0].host,
        master_port=places[0].port,
        tracking_uri=launch.tracking_uri,
        data_roots=launch.data_roots,
        allow_download=launch.allow_download,
        hang_seconds=launch.hang_seconds,
        traceparent=launch.traceparent,
        probe=launch.probe,
        node_gpus=node_gpus,
        gpu_index=node_gpus.index(mine.gpus[0]) if mine.gpus else 0,
    )
