"""What routes ask for: the settings, the store, an experiment that exists."""

import threading
from typing import Annotated

from fastapi import Depends, Path, Request

from service.models import Experiment
from service.settings import Settings
from service.store import Store


def settings_of(request: Request) -> Settings:
    """The settings the app was made with."""
    settings: Settings = request.app.state.settings
    return settings


def store_of(request: Request) -> Store:
    """The store the app was made with."""
    store: Store = request.app.state.store
    return store


def closing_of(request: Request) -> threading.Event:
    """Set once the server closes: whatever streams must end then."""
    closing: threading.Event = request.app.state.closing
    return closing


Closing = Annotated[threading.Event, Depends(closing_of)]
TheSettings = Annotated[Settings, Depends(settings_of)]
TheStore = Annotated[Store, Depends(store_of)]
ExperimentId = Annotated[str, Path(min_length=1, max_length=32, pattern=r"^[0-9a-z]+$")]


def existing(experiment_id: ExperimentId, store: TheStore) -> Experiment:
    """The experiment of the path, or a 404 before anything is streamed."""
    return store.get(experiment_id)


Existing = Annotated[Experiment, Depends(existing)]
