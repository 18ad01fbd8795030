"""What routes ask for: the settings, the store, who calls, an experiment that exists."""

from typing import Annotated, Any

from anyio import CapacityLimiter
from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPBearer

from service.api.live.seats import Seats
from service.auth.audit import AuditLog
from service.auth.file_links import FileLinks
from service.auth.tokens import Tokens
from service.database.models.experiments import Experiment
from service.database.operations import Operations
from service.domain.pruning import PruneScope
from service.domain.roles import Caller, Role, require, require_change
from service.errors import FilesPruned
from service.experiments.files import ExperimentFiles
from service.experiments.store import ExperimentStore
from service.preview.profiler import NetworkProfiler
from service.settings import Settings
from service.webhooks.store import WebhookStore


def the_apps(name: str) -> Any:
    """A dependency: what the app was made with under this name (`service.api.app.create_app`)."""

    def given(request: Request) -> object:
        return getattr(request.app.state, name)

    return Depends(given)


ProfilerDep = Annotated[NetworkProfiler, the_apps("network_profiler")]
SettingsDep = Annotated[Settings, the_apps("settings")]
StoreDep = Annotated[ExperimentStore, the_apps("store")]
OperationsDep = Annotated[Operations, the_apps("operations")]
AuditDep = Annotated[AuditLog, the_apps("audit")]
WebhooksDep = Annotated[WebhookStore, the_apps("webhooks")]
TokensDep = Annotated[Tokens, the_apps("tokens")]
SeatsDep = Annotated[Seats, the_apps("seats")]
FilesDep = Annotated[ExperimentFiles, the_apps("files")]
FileLinksDep = Annotated[FileLinks, the_apps("file_links")]
FileThreadsDep = Annotated[CapacityLimiter, the_apps("file_threads")]
READS = frozenset({"GET", "HEAD"})
BEARER = HTTPBearer(auto_error=False, description="a token of `cbam token create`; not needed while there are none")


def caller_of(request: Request) -> Caller:
    """Whoever the gate has let in."""
    caller: Caller = request.state.caller
    return caller


CallerDep = Annotated[Caller, Depends(caller_of)]


def by_method(request: Request, caller: CallerDep) -> None:
    """Reading needs a viewer, everything else a user. For whole routers; what is owned is checked beside."""
    require(caller, Role.VIEWER if request.method in READS else Role.USER)


def admins_only(caller: CallerDep) -> None:
    """For whole routers."""
    require(caller, Role.ADMIN)


GUARDED = [Security(BEARER), Depends(by_method)]
"""The `dependencies=` of a router: viewers read, users write."""
FOR_ADMINS = [Security(BEARER), Depends(admins_only)]
"""The `dependencies=` of a router that only admins may use."""

Id = Annotated[str, Path(min_length=1, max_length=32, pattern=r"^[0-9a-z]+$")]
ExperimentId = Id


def existing(experiment_id: ExperimentId, store: StoreDep) -> Experiment:
    """The experiment of the path, or a 404 before anything is streamed."""
    return store.get(experiment_id)


ExperimentDep = Annotated[Experiment, Depends(existing)]


def with_files(row: ExperimentDep) -> Experiment:
    """The experiment of the path, where it has its files; else a 410 before anything is streamed."""
    if row.pruned == PruneScope.ALL:
        raise FilesPruned
    return row


ExperimentFilesDep = Annotated[Experiment, Depends(with_files)]


def changeable(row: ExperimentDep, caller: CallerDep) -> Experiment:
    """The experiment of the path, where the caller may change it; else a 403."""
    require_change(caller, row.owner)
    return row


EditableExperimentDep = Annotated[Experiment, Depends(changeable)]
