"""What the API does for a user with a study of any kind, without HTTP in it."""

from service.database.models.studies import Study
from service.domain.roles import Caller, require_change
from service.studies.store import StudyStore


def act(store: StudyStore, study_id: str, action: str, *, caller: Caller) -> Study:
    """Write down that the caller wants to cancel, pause, resume or retry. Asking twice is no error.

    Raises StudyNotFound, Forbidden (it is somebody else's), IllegalStudyAction with the actions that the state allows.
    """
    require_change(caller, store.get(study_id).owner)
    if action == "retry":
        return store.retry(study_id, by=caller.name)
    return store.wish(study_id, action, by=caller.name)
