"""How fast the training goes, and how long it will still take."""

from collections import deque

_WINDOW = 50


class Throughput:
    """Keeps the durations of recent steps and evaluations, in seconds. It has `begun` with the first step."""

    def __init__(self, images_per_step: int) -> None:
        self._images_per_step = images_per_step
        self._steps: deque[tuple[float, int]] = deque(maxlen=_WINDOW)  # seconds, steps finished in them
        self.begun = False
        self._evaluation: float | None = None
        self.steps_done = 0
        self.training_seconds = 0.0
        self.waiting_seconds = 0.0

    def step_took(self, seconds: float, waiting: float, finished: int = 1) -> None:
        """One optimiser step, with the part of it that was waiting for its batch.

        `finished` counts the steps that the device ended meanwhile: none where it was idle before and works on this
        one still, else the one before.
        """
        if not self.begun:
            self.begun = True  # kernels are chosen and memory is found: it says little about the others
        else:
            self._steps.append((seconds, finished))
            self.steps_done += finished
            self.training_seconds += seconds
            self.waiting_seconds += waiting

    def steps_took_longer(self, seconds: float, finished: int = 0) -> None:
        """What the device still had to do for the steps so far, once it was waited for, and how many ended with it."""
        if self._steps:
            last_seconds, last_finished = self._steps[-1]
            self._steps[-1] = last_seconds + seconds, last_finished + finished
            self.steps_done += finished
            self.training_seconds += seconds

    def evaluation_took(self, seconds: float) -> None:
        """One pass over the images of val."""
        self._evaluation = seconds

    @property
    def images_per_second(self) -> float | None:
        """Over the last steps, all ranks together; None before the second step has ended."""
        return self._images_per_step / step if (step := self._seconds_per_step) else None

    @property
    def mean_images_per_second(self) -> float | None:
        """Over all steps of this attempt but its first."""
        return self._images_per_step * self.steps_done / self.training_seconds if self.steps_done else None

    @property
    def data_wait_share(self) -> float | None:
        """Share of the training time spent waiting for batches; None before the second step has ended."""
        return self.waiting_seconds / self.training_seconds if self.steps_done else None

    def metrics(self) -> dict[str, float]:
        """By the names MLflow shows."""
        values = {"images_per_second": self.images_per_second, "data_wait_share": self.data_wait_share}
        return {name: value for name, value in values.items() if value is not None}

    def eta_seconds(self, steps_left: int, evaluations_left: float, val_steps: int) -> float | None:
        """What the steps and evaluations of val that are left will take; test counts as a multiple of val.

        Before the first evaluation, one of `val_steps` forward passes is taken for a third of as many training steps.
        """
        step = self._seconds_per_step
        if step is None:
            return None
        evaluation = self._evaluation if self._evaluation is not None else val_steps * step / 3
        return steps_left * step + evaluations_left * evaluation

    @property
    def _seconds_per_step(self) -> float | None:
        finished = sum(finished for _, finished in self._steps)
        return sum(seconds for seconds, _ in self._steps) / finished if finished else None
