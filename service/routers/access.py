"""Tokens over HTTP: who am I; and for admins: make, list, revoke."""

from fastapi import APIRouter, Response

from service.access_schemas import CallerView, NewToken, TokenList, TokenRequest, TokenView
from service.deps import FOR_ADMINS, GUARDED, Id, TheCaller, TheTokens
from service.http_errors import documented

router = APIRouter(prefix="/v1", tags=["access"])
REFUSALS = documented(401, 403)


@router.get("/whoami", dependencies=GUARDED, responses=REFUSALS)
def whoami(caller: TheCaller) -> CallerView:
    """Say whom the server takes you for."""
    return CallerView.model_validate(caller)


@router.post("/tokens", status_code=201, dependencies=FOR_ADMINS, responses=REFUSALS | documented(400, 413, 415, 422))
def create_token(wanted: TokenRequest, response: Response, tokens: TheTokens, caller: TheCaller) -> NewToken:
    """Make a token. Its secret is in this answer and nowhere else."""
    row, secret = tokens.create(wanted, by=caller.name)
    response.headers["Location"] = f"/v1/tokens/{row.id}"
    return NewToken.of_new(row, secret)


@router.get("/tokens", dependencies=FOR_ADMINS, responses=REFUSALS)
def list_tokens(tokens: TheTokens) -> TokenList:
    """List every token, also those that are revoked or expired."""
    return TokenList(items=[TokenView.of(row) for row in tokens.list()])


@router.delete("/tokens/{token_id}", dependencies=FOR_ADMINS, responses=REFUSALS | documented(404, 422))
def revoke_token(token_id: Id, tokens: TheTokens) -> TokenView:
    """Shut a token out, from the next request on. Its row stays, for the history."""
    return TokenView.of(tokens.revoke(token_id))
