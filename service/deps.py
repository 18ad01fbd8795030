"""What routes ask for: the settings, the store, who calls, an experiment that exists."""

from typing import Annotated

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPBearer

from service.audit import AuditLog
from service.models import Experiment
from service.previewer import Previewer
from service.roles import Caller, Role, require, require_change
from service.settings import Settings
from service.store import Store
from service.tokens import Tokens
from service.webhooks import Webhooks


def settings_of(request: Request) -> Settings:
    """The settings the app was made with."""
    settings: Settings = request.app.state.settings
    return settings


def store_of(request: Request) -> Store:
    """The store the app was made with."""
    store: Store = request.app.state.store
    return store


def tokens_of(request: Request) -> Tokens:
    """The tokens of the app's database."""
    tokens: Tokens = request.app.state.tokens
    return tokens


def webhooks_of(request: Request) -> Webhooks:
    """The webhooks of the app's database."""
    webhooks: Webhooks = request.app.state.webhooks
    return webhooks


def audit_of(request: Request) -> AuditLog:
    """The audit events of the app's database."""
    audit: AuditLog = request.app.state.audit
    return audit


def previewer_of(request: Request) -> Previewer:
    """The one that has networks measured."""
    previewer: Previewer = request.app.state.previewer
    return previewer


ThePreviewer = Annotated[Previewer, Depends(previewer_of)]
TheSettings = Annotated[Settings, Depends(settings_of)]
TheStore = Annotated[Store, Depends(store_of)]
TheAudit = Annotated[AuditLog, Depends(audit_of)]
TheWebhooks = Annotated[Webhooks, Depends(webhooks_of)]
TheTokens = Annotated[Tokens, Depends(tokens_of)]
READS = frozenset({"GET", "HEAD"})
BEARER = HTTPBearer(auto_error=False, description="a token of `cbam token create`; not needed while there are none")


def caller_of(request: Request) -> Caller:
    """Whoever the gate has let in."""
    caller: Caller = request.state.caller
    return caller


TheCaller = Annotated[Caller, Depends(caller_of)]


def by_method(request: Request, caller: TheCaller) -> None:
    """Reading needs a viewer, everything else a user. For whole routers; what is owned is checked beside."""
    require(caller, Role.VIEWER if request.method in READS else Role.USER)


def admins_only(caller: TheCaller) -> None:
    """For whole routers."""
    require(caller, Role.ADMIN)


GUARDED = [Security(BEARER), Depends(by_method)]
"""The `dependencies=` of a router: viewers read, users write."""
FOR_ADMINS = [Security(BEARER), Depends(admins_only)]
"""The `dependencies=` of a router that only admins may use."""

Id = Annotated[str, Path(min_length=1, max_length=32, pattern=r"^[0-9a-z]+$")]
ExperimentId = Id


def existing(experiment_id: ExperimentId, store: TheStore) -> Experiment:
    """The experiment of the path, or a 404 before anything is streamed."""
    return store.get(experiment_id)


Existing = Annotated[Experiment, Depends(existing)]


def changeable(row: Existing, caller: TheCaller) -> Experiment:
    """The experiment of the path, where the caller may change it; else a 403."""
    require_change(caller, row.owner)
    return row


Changeable = Annotated[Experiment, Depends(changeable)]
