"""One worker of a gang on Ray, asked without waiting for it."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    OutOfMemoryError,
    RayActorError,
    RuntimeEnvSetupError,
)

from service.cluster.base import GangKey
from workers.protocol.assignment import Assignment
from workers.protocol.outcome import Outcome
from workers.protocol.progress import Progress

log = logging.getLogger(__name__)

NEWS = "news"  # the concurrency group in which questions for news wait, beside a worker's other calls
THREADS = {NEWS: 2}  # of each group: a dispatcher that was started anew need not wait for the last one's question
SILENT_SECONDS = 30.0  # a worker that has not answered for so long is neither alive nor dead
_DEATHS = (RayActorError, OutOfMemoryError, ActorUnschedulableError, RuntimeEnvSetupError)


@dataclass
class WorkerHandle:
    """One worker, asked without waiting for it."""

    actor: Any
    on_news: Callable[[], None] = lambda: None
    question: Future[Any] | None = None
    asked_at: float = 0.0
    ask_at: float = 0.0
    answered: bool = False
    tells_news: bool = False  # one of an earlier version, found after an upgrade, does not
    key: GangKey | None = None
    token: str | None = None
    progress: Progress = Progress()  # noqa: RUF009 - frozen
    outcome: Outcome | None = None
    is_fit: bool = True
    code: str | None = None  # those of earlier versions do not say it
    died: str | None = None

    def begin(self, assignment: Assignment) -> None:
        """Have the worker train. Answers about what it did before are not taken any more."""
        self.token = assignment.token
        self.actor.start.remote(assignment.to_dict())

    def forget(self) -> None:
        """Forget what the worker did before."""
        self.progress, self.outcome, self.token = Progress(), None, "not begun"

    def poll(self, seconds: float) -> None:
        """Take the answer if it has come, and ask again: first for what is, from then on for what is new.

        Who has no news answers after `seconds`, and who cannot wait for them is asked again after so long.
        """
        now = time.monotonic()
        if self.question is not None and self.question.done():
            question, self.question = self.question, None
            self.ask_at = now + seconds  # who answers with an error may do so at once, again and again
            try:
                self._hear(question.result())
                self.ask_at = now if self.tells_news else self.ask_at
            except ActorUnavailableError:
                log.debug("a worker does not answer at present")
            except _DEATHS as error:
                self.died = str(error)
        if self.question is None and self.died is None and now >= self.ask_at:
            self.question, self.asked_at = ask(self._question(seconds), self.on_news), now

    def _question(self, seconds: float) -> Any:
        if self.tells_news:
            return self.actor.news.options(concurrency_group=NEWS).remote(seconds)
        return self.actor.poll.remote()

    def has_succeeded(self) -> bool:
        """Whether it has ended, and well."""
        return self.outcome is not None and self.outcome.outcome == "succeeded"

    def is_silent(self) -> bool:
        """Whether it has not answered for so long that nothing can be said of it."""
        return self.question is not None and time.monotonic() - self.asked_at > SILENT_SECONDS

    def _hear(self, answer: Mapping[str, Any]) -> None:
        self.answered, self.tells_news, self.code = True, answer.get("news", False), answer.get("code")
        if self.token is not None and answer["token"] != self.token:
            return  # still about the attempt before
        self.key = GangKey(answer["experiment_id"], answer["attempt"]) if answer["experiment_id"] else None
        self.progress = Progress.from_dict(answer["progress"])
        self.outcome = Outcome.from_dict(answer["outcome"]) if answer["outcome"] else None
        self.is_fit = answer["fit"]


def ask(reference: Any, on_answer: Callable[[], None]) -> Future[Any]:
    """The answer to a call of an actor, and whom to tell that it has come."""
    answer: Future[Any] = reference.future()
    answer.add_done_callback(lambda _: on_answer())
    return answer
