"""A dispatcher, made to tick by the test."""

import pytest

from service.dispatcher.dispatcher import Dispatcher
from service.domain.states import State
from service.experiments.store import ExperimentStore


def tick(dispatcher: Dispatcher, times: int = 1) -> None:
    for _ in range(times):
        dispatcher.tick()
        dispatcher.clock.advance(0.5)  # type: ignore[attr-defined]


def until(dispatcher: Dispatcher, store: ExperimentStore, experiment_id: str, state: State, most: int = 60) -> None:
    for _ in range(most):
        if store.get(experiment_id).state == state:
            return
        tick(dispatcher)
    pytest.fail(f"still {store.get(experiment_id).state} after {most} ticks")
