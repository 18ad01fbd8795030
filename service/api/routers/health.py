"""Whether the service lives, whether it can serve, and its numbers for Prometheus."""

from fastapi import APIRouter, Request, Response

from service.api.deps import GUARDED
from service.api.health import Probe
from service.api.problems import documented
from service.schemas.health import Readiness

router = APIRouter(tags=["operations"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """Answer while the process lives."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    responses={503: {"model": Readiness, "description": "the database does not answer, or cannot be written to"}},
)
def readyz(request: Request, response: Response) -> Readiness:
    """Ready while the database can be used; Ray, MLflow or the dispatcher away is degraded: submitting still works."""
    probe: Probe = request.app.state.probe
    answer = probe.look()
    if request.state.caller is None:
        answer = answer.without_details()
    response.status_code = 200 if answer.ready else 503
    return answer


@router.get("/metrics", response_class=Response, dependencies=GUARDED, responses=documented(401, 403))
def metrics(request: Request) -> Response:
    """Give the numbers of the service in Prometheus' text format."""
    content, media_type = request.app.state.metrics.render()
    return Response(content, media_type=media_type)
