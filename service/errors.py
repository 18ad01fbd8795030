"""Everything `service` raises on purpose. The docstring is the default message; HTTP codes are in `api/problems.py`."""

from collections.abc import Sequence

from cbam_core.errors import CbamError
from cbam_core.pointers import LONGEST_POINTER, LONGEST_WORDS, cut
from service.domain.states import ACTIONS, State


class ServiceError(CbamError):
    """The service cannot do that."""


class ExperimentNotFound(ServiceError):
    """There is no experiment with this id."""


class TemplateNotFound(ServiceError):
    """There is no template with this name."""


class TokenNotFound(ServiceError):
    """There is no token with this id."""


class WebhookNotFound(ServiceError):
    """There is no webhook with this id."""


class TooManyWebhooks(ServiceError):
    """Nobody may have so many webhooks."""


class TooManyTests(ServiceError):
    """A webhook may not be tested so often."""


class AddressRefused(ServiceError):
    """This address is not a public one."""


class DeliveryFailed(ServiceError):
    """The receiver could not be reached."""


class UnusableToken(ServiceError):
    """This cannot be a token."""


class NoTokens(ServiceError):
    """Without a token the server may listen on loopback only."""


class Forbidden(ServiceError):
    """This token may not do that."""


class IllegalAction(ServiceError):
    """The experiment's state does not allow this."""

    def __init__(self, action: str, state: State) -> None:
        self.legal = ACTIONS[state]
        allowed = f"it allows {' and '.join(self.legal)}" if self.legal else "it allows nothing more"
        super().__init__(f"cannot {action} an experiment that is {state}; {allowed}")


class IdempotencyConflict(ServiceError):
    """This Idempotency-Key was used before with another body."""


class VersionConflict(ServiceError):
    """The experiment has changed since this version of it was read; read it again."""


class PreviewUnavailable(ServiceError):
    """Networks cannot be measured at the moment."""


class TooManyStreams(ServiceError):
    """This server has as many viewers as it takes; try again, or ask another one."""


class TooManyOwnStreams(ServiceError):
    """You follow as many logs and events as one caller may; end one of them first."""


class InvalidFields(ServiceError):
    """Fields of the request cannot be used."""

    def __init__(self, items: Sequence[tuple[str, str]]) -> None:
        self.items = tuple((cut(pointer, LONGEST_POINTER), cut(detail, LONGEST_WORDS)) for pointer, detail in items)
        super().__init__("; ".join(f"{pointer}: {detail}" for pointer, detail in self.items))


class InvalidField(InvalidFields):
    """A field of the request cannot be used."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__([(pointer, detail)])
        self.pointer = pointer
        self.detail = detail


class ClusterUnavailable(ServiceError):
    """The Ray cluster cannot be reached."""


class NotLeading(ServiceError):
    """Another dispatcher leads."""


class StaleMove(ServiceError):
    """The row changed since it was read; the move is dropped."""


class StackError(ServiceError):
    """A part of the local stack cannot be started or stopped."""


class BackupError(ServiceError):
    """The database cannot be backed up or restored."""


class MissingExtra(ServiceError):
    """A command needs packages that only an extra of cbam-lab brings."""


class ApiError(ServiceError):
    """The server refused the request."""

    def __init__(
        self,
        status: int,
        problem: dict[str, object],
        *,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        lines = [str(problem.get("detail") or problem.get("title") or f"HTTP {status}")]
        errors = problem.get("errors")
        if isinstance(errors, list):
            lines += [f"  {item.get('pointer') or '/'}: {item.get('detail')}" for item in errors]
        super().__init__("\n".join(lines))
        self.status = status
        self.problem = problem
        self.retry_after = retry_after  # seconds
        self.request_id = request_id  # the server's log knows more under it


class NotAuthenticated(ApiError):
    """The server wants a token, or does not know this one; set CBAM_TOKEN."""


class NotAllowed(ApiError):
    """This token may not do that."""


class NotFound(ApiError):
    """There is no such thing."""


class NotNow(ApiError):
    """The state does not allow it; `problem["legal"]` names what it allows."""


class ChangedMeanwhile(ApiError):
    """Somebody changed it since it was read."""


class NotUsable(ApiError):
    """The request holds something that cannot be used; `problem["errors"]` names the fields."""


class TooMany(ApiError):
    """The rate limit is reached; `retry_after` says for how long."""


class NotReady(ApiError):
    """The server cannot work at the moment."""


REFUSALS: dict[int, type[ApiError]] = {
    400: NotUsable,
    401: NotAuthenticated,
    403: NotAllowed,
    404: NotFound,
    409: NotNow,
    412: ChangedMeanwhile,
    413: NotUsable,
    415: NotUsable,
    422: NotUsable,
    429: TooMany,
    503: NotReady,
}
"""What the client raises for each status."""


class BadToken(ServiceError):
    """CBAM_TOKEN holds something that no token is."""


class ServerUnreachable(ServiceError):
    """The server does not answer."""
