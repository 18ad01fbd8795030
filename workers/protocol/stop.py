"""A request to stop, made in one thread and obeyed in another at the next step that all ranks agree on."""

import threading
from typing import Literal

StopMode = Literal["pause", "cancel"]


class StopSignal:
    """Remembers the strongest request: a cancel outranks a pause, and nothing takes it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mode: StopMode | None = None

    @property
    def mode(self) -> StopMode | None:
        """How to stop; None while nobody has asked."""
        return self._mode

    def request(self, mode: StopMode) -> None:
        """Ask to stop, from any thread."""
        with self._lock:
            if self._mode != "cancel":
                self._mode = mode
