"""What the cluster has, as the leading dispatcher last saw it. The API itself never talks to Ray."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from service.deps import GUARDED, TheStore
from service.http_errors import documented
from service.lease import current_leader
from service.schemas import View
from service.states import State

router = APIRouter(prefix="/v1", tags=["operations"], dependencies=GUARDED, responses=documented(401, 403))


class NodeView(View):
    """One machine."""

    id: str
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float


class ClusterInfo(View):
    """Machines, what of them is free, and what waits."""

    leader: str | None = Field(description="the dispatcher that leads; null: nothing is started at the moment")
    reachable: bool = Field(description="whether that dispatcher saw the cluster when it last looked")
    message: str = Field(description="why it did not")
    seen_at: datetime | None
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    nodes: list[NodeView]
    experiments: dict[State, int] = Field(description="how many are in each state")


@router.get("/cluster")
def show(store: TheStore) -> ClusterInfo:
    """Show nodes, CPUs and GPUs, the queue, and which dispatcher leads."""
    row = store.cluster()
    nodes = [] if row is None else [NodeView(**node) for node in row.nodes]
    sums = {name: sum(getattr(node, name) for node in nodes) for name in ("cpus", "gpus", "free_cpus", "free_gpus")}
    return ClusterInfo(
        leader=current_leader(store.database),
        reachable=row is not None and row.reachable,
        message="no dispatcher has looked yet" if row is None else row.message,
        seen_at=None if row is None else row.at,
        nodes=nodes,
        experiments=store.count_by_state(),
        **sums,
    )
