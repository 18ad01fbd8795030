"""How far this process may be ahead of its device, and the losses that the device still has to compute."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.train.utilization import synchronize


class RunAhead:
    """Keeps a GPU one optimiser step behind this process: while it works on one step, the next is enqueued.

    Further ahead, queued batches would fill its memory, and a pause or a lost loss would be seen as many steps late.
    A CPU has finished a step when the call returns.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last: torch.cuda.Event | None = None

    def enqueued(self) -> int:
        """Mark the end of the step that was enqueued and wait for the one before it: what that computed can be read.

        Returns how many steps the device has finished since the last call.
        """
        before, self._last = self._last, _end_of_step(self._device)
        if self._last is None:
            return 1
        if before is None:
            return 0
        before.synchronize()
        return 1

    def finish(self) -> int:
        """Wait for everything that was enqueued; returns how many steps the device has finished since the last call."""
        synchronize(self._device)
        unfinished, self._last = self._last, None
        return int(unfinished is not None)


@dataclass(frozen=True)
class PendingLoss:
    """The mean loss of the `steps` optimiser steps up to `step`, and the metrics that are logged with it."""

    step: int
    steps: int
    value: Tensor
    """On the host; to be read once RunAhead has seen the device finish `step`."""
    metrics: dict[str, float]

    @property
    def where(self) -> str:
        """The steps that the loss is the mean of, in words."""
        first = self.step - self.steps + 1
        return f"at step {self.step}" if self.steps == 1 else f"between steps {first} and {self.step}"


def copy_to_host(value: Tensor) -> Tensor:
    """Enqueue a copy of `value` into pinned memory, which torch allocates for a copy that does not block."""
    return value.to("cpu", non_blocking=True)


def _end_of_step(device: torch.device) -> torch.cuda.Event | None:
    """An event behind all that `device` was given so far; None for a CPU. Waiting for it leaves the core to others."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(blocking=True)
    event.record(torch.cuda.current_stream(device))
    return event
