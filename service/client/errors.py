"""What the client raises: refusals of the server, and a server that does not answer."""

from collections.abc import Iterable

from service.errors import ServiceError


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
        said = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
        errors = problem.get("errors")
        if isinstance(errors, list):
            items = [f"{item.get('pointer') or '/'}: {item.get('detail')}" for item in errors]
            said = "\n".join(items) if said == "; ".join(items) else "\n  ".join([said, *items])
        super().__init__(said)
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


class Gone(ApiError):
    """It was there, and has been deleted or pruned."""


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
    410: Gone,
    412: ChangedMeanwhile,
    413: NotUsable,
    415: NotUsable,
    422: NotUsable,
    429: TooMany,
    503: NotReady,
}
"""What the client raises for each status."""


class CannotWrite(ServiceError):
    """What was downloaded cannot be kept."""


class DownloadDamaged(ServiceError):
    """What was downloaded is not what the server has."""


class DownloadIncomplete(ServiceError):
    """Several files could not be downloaded; the message names each."""


class FileUnreadable(ServiceError):
    """The server cannot read a file."""


class NoFileMatches(ServiceError):
    """The experiment has no file that matches."""


class UnsafePath(ServiceError):
    """The server names a file that would lie outside the folder for downloads."""


class MissingExperiments(ServiceError):
    """There are no experiments with these ids, or none any more; `ids` has them."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = sorted(ids)
        super().__init__(f"there are no experiments with these ids (any more): {', '.join(self.ids)}")


class NeedsPandas(ServiceError):
    """A data frame needs pandas, which the client does not bring: pip install pandas."""


class BadToken(ServiceError):
    """CBAM_TOKEN holds something that no token is."""


class ServerUnreachable(ServiceError):
    """The server does not answer."""
