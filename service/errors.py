"""Everything `service` raises on purpose. The docstring is the default message; HTTP codes are in `http_errors.py`."""

from collections.abc import Sequence

from cbam_core.errors import CbamError
from service.states import ACTIONS, State


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


class InvalidFields(ServiceError):
    """Fields of the request cannot be used."""

    def __init__(self, items: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{pointer}: {detail}" for pointer, detail in items))
        self.items = tuple(items)


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


class ApiError(ServiceError):
    """The server refused the request."""

    def __init__(self, status: int, problem: dict[str, object]) -> None:
        lines = [str(problem.get("detail") or problem.get("title") or f"HTTP {status}")]
        errors = problem.get("errors")
        if isinstance(errors, list):
            lines += [f"  {item.get('pointer') or '/'}: {item.get('detail')}" for item in errors]
        super().__init__("\n".join(lines))
        self.status = status
        self.problem = problem


class ServerUnreachable(ServiceError):
    """The server does not answer."""
