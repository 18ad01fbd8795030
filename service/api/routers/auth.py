"""Tokens over HTTP: who am I; and for admins: make, list, revoke."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.api.bodies import BoundedRoute
from service.api.deps import FOR_ADMINS, GUARDED, AuditDep, CallerDep, Id, OperationsDep, SettingsDep, TokensDep
from service.api.problems import documented
from service.domain.filters import PAGE_LIMIT
from service.schemas.auth import AuditPage, AuditView, CallerView, NewToken, TokenList, TokenRequest, TokenView

router = APIRouter(prefix="/v1", tags=["access"], route_class=BoundedRoute)
REFUSALS = documented(401, 403)


@router.get("/whoami", dependencies=GUARDED, responses=REFUSALS)
def whoami(caller: CallerDep, operations: OperationsDep, settings: SettingsDep) -> CallerView:
    """Say whom the server takes you for, and how much you keep on its disk."""
    return CallerView(
        **vars(caller), disk_bytes=operations.disk_usage(caller.name), disk_quota_bytes=settings.quota_disk
    )


@router.post("/tokens", status_code=201, dependencies=FOR_ADMINS, responses=REFUSALS | documented(400, 413, 415, 422))
def create_token(wanted: TokenRequest, response: Response, tokens: TokensDep, caller: CallerDep) -> NewToken:
    """Make a token. Its secret is in this answer and nowhere else."""
    row, secret = tokens.create(wanted, by=caller.name)
    response.headers["Location"] = f"/v1/tokens/{row.id}"
    return NewToken.of(TokenView.model_validate(row), secret)


@router.get("/tokens", dependencies=FOR_ADMINS, responses=REFUSALS)
def list_tokens(tokens: TokensDep) -> TokenList:
    """List every token, also those that are revoked or expired."""
    return TokenList(items=[TokenView.model_validate(row) for row in tokens.list()])


@router.delete("/tokens/{token_id}", dependencies=FOR_ADMINS, responses=REFUSALS | documented(404, 422))
def revoke_token(token_id: Id, tokens: TokensDep) -> TokenView:
    """Shut a token out, from the next request on. Its row stays, for the history."""
    return TokenView.model_validate(tokens.revoke(token_id))


@router.get("/audit", dependencies=FOR_ADMINS, responses=REFUSALS | documented(422))
def list_audit_events(
    audit: AuditDep,
    *,
    actor: Annotated[str | None, Query(max_length=128, description="only what this caller did")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(pattern="^[0-9]{1,18}$", description="the last page's `next_cursor`")] = None,
) -> AuditPage:
    """List who did, or tried to do, what: every change and every refusal, the newest first."""
    rows = audit.page(actor=actor, before=None if cursor is None else int(cursor), limit=limit + 1)
    more = len(rows) > limit
    rows = rows[:limit]
    return AuditPage(
        items=[AuditView.model_validate(row) for row in rows], next_cursor=str(rows[-1].seq) if more else None
    )
