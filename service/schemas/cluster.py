"""What the API tells of the cluster."""

from datetime import datetime

from pydantic import Field

from service.domain.states import State
from service.schemas.base import View


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
