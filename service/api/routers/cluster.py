"""What the cluster has, as the leading dispatcher last saw it. The API itself never talks to Ray."""

from fastapi import APIRouter

from service.api.deps import GUARDED, OperationsDep
from service.api.problems import documented
from service.database.lease import current_leader
from service.schemas.cluster import ClusterInfo, NodeView

router = APIRouter(prefix="/v1", tags=["operations"], dependencies=GUARDED, responses=documented(401, 403))


@router.get("/cluster")
def show(operations: OperationsDep) -> ClusterInfo:
    """Show nodes, CPUs and GPUs, the queue, and which dispatcher leads."""
    row = operations.cluster()
    nodes = [] if row is None else [NodeView(**node) for node in row.nodes]
    sums = {name: sum(getattr(node, name) for node in nodes) for name in ("cpus", "gpus", "free_cpus", "free_gpus")}
    return ClusterInfo(
        leader=current_leader(operations.database),
        reachable=row is not None and row.reachable,
        message="no dispatcher has looked yet" if row is None else row.message,
        seen_at=None if row is None else row.at,
        nodes=nodes,
        experiments=operations.count_by_state(),
        **sums,
    )
