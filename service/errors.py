"""Everything `service` raises on purpose. The docstring is the default message; HTTP codes are in `api/problems.py`."""

from collections.abc import Sequence
from datetime import datetime

from cbam_core import lazy_names
from cbam_core.errors import CbamError
from cbam_core.pointers import LONGEST_POINTER, LONGEST_WORDS, cut


class ServiceError(CbamError):
    """The service cannot do that."""


class ExperimentNotFound(ServiceError):
    """There is no experiment with this id."""


class StudyNotFound(ServiceError):
    """There is no study with this id."""


class NoPredictions(ServiceError):
    """The experiment kept no predictions of single images."""


class NoSuchFile(ServiceError):
    """The experiment has no file with this path, or none that is shown."""


class NoSuchLink(ServiceError):
    """This link is not known, has been used, or is too old; ask for another one."""


class StorageUnavailable(ServiceError):
    """Shared storage cannot be read at the moment."""


class ServerClosing(StorageUnavailable):
    """The server closes."""


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

    def __init__(self, action: str, state: str, legal: Sequence[str]) -> None:
        self.legal = legal
        allowed = f"it allows {' and '.join(self.legal)}" if self.legal else "it allows nothing more"
        super().__init__(f"cannot {action} an experiment that is {state}; {allowed}")


class IllegalStudyAction(IllegalAction):
    """The study's state does not allow this."""

    def __init__(self, action: str, state: str, legal: Sequence[str]) -> None:
        super().__init__(action, state, legal)
        self.args = (self.args[0].replace("an experiment", "a study"),)


class GoesOn(IllegalAction):
    """An experiment has not ended, and so its study cannot be deleted with all of its experiments."""

    def __init__(self, experiment_id: str, action: str, state: str, legal: Sequence[str]) -> None:
        super().__init__(action, state, legal)
        self.args = (f"{experiment_id}: {self.args[0]}",)


class NothingToRetry(IllegalStudyAction):
    """No experiment of the study can be queued once more."""

    def __init__(self, state: str, legal: Sequence[str], *, why: str) -> None:
        super().__init__("retry", state, [action for action in legal if action != "retry"])
        self.args = (f"cannot retry a study that is {state}: {why}",)


class PrunedExperiment(IllegalAction):
    """The checkpoints that the experiment would go on from have been pruned."""

    def __init__(self, action: str, at: datetime | None, legal: Sequence[str]) -> None:
        super().__init__(action, "pruned", legal)
        when = "" if at is None else f" on {at:%Y-%m-%d}"
        self.args = (f"cannot {action} it: its checkpoints were pruned{when}; clone it to train it anew",)


class TrackingUnfinished(ServiceError):
    """MLflow has not heard all of it, and the rest stands in these files; prune it when MLflow is back."""


class FilesPruned(ServiceError):
    """All files of this experiment have been pruned, logs and metrics too; its MLflow run stays."""


class DiskQuotaExceeded(ServiceError):
    """The owner keeps as many files as one may."""


class IdempotencyConflict(ServiceError):
    """This Idempotency-Key was used before with another body."""


class ExperimentDeleted(ServiceError):
    """What was submitted with this Idempotency-Key has been deleted; use another key to submit it anew."""


class StudyDeleted(ServiceError):
    """The study that was submitted with this Idempotency-Key has been deleted; use another key to submit it anew."""


class VersionConflict(ServiceError):
    """The experiment has changed since this version of it was read; read it again."""


class PreviewUnavailable(ServiceError):
    """Networks cannot be measured at the moment."""


class ProposalUnavailable(ServiceError):
    """The process that proposes values for sweeps has ended, or takes too long; is Optuna installed here?"""


class TooManyStreams(ServiceError):
    """This server has as many viewers as it takes; try again, or ask another one."""


class TooManyOwnStreams(ServiceError):
    """You follow, or download, as much at once as one caller may; end one of them first."""


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


_OF_THE_CLIENT = (
    "ApiError", "BadToken", "ChangedMeanwhile", "NotAllowed", "NotAuthenticated", "NotFound", "NotNow", "NotReady",
    "NotUsable", "REFUSALS", "ServerUnreachable", "TooMany",
)  # fmt: skip
"""By their old place, for one version: they are in `service.client.errors` now."""

__getattr__ = lazy_names("service", dict.fromkeys(_OF_THE_CLIENT, "client.errors"))
