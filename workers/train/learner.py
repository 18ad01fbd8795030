"""A network and what trains it: one global batch in, one better network out."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cbam_core.networks.learning_rates import lr_scales
from cbam_core.networks.parts import train_mode
from cbam_core.spec import TrainSpec
from workers.train.distributed import ProcessGroup
from workers.train.loss import build_loss
from workers.train.optimizer import build_optimizer, load_optimizer, set_learning_rate

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Learner:
    """The network, its optimiser, its loss scaler, and the average of its weights where the recipe has one."""

    def __init__(
        self, recipe: TrainSpec, network: nn.Module, gang: ProcessGroup, *, class_weights: Tensor | None = None
    ) -> None:
        """`class_weights` (K) are those of the training's classes, where the recipe has any (`loss.class_weights`)."""
        self.recipe = recipe
        if recipe.sync_batch_norm:
            network = gang.synchronise(network)
        self.network = network.to(gang.device).to(memory_format=self._memory_format)
        self.average: nn.Module | None = copy.deepcopy(self.network).eval() if recipe.ema else None
        scales = lr_scales(self.network, layer_decay=recipe.layer_decay, attention=recipe.attention_lr_scale)
        self.optimizer = build_optimizer(recipe.optimizer, self.network, lr_scales=scales)
        self._gang = gang
        self._loss = build_loss(recipe, None if class_weights is None else class_weights.to(gang.device))
        self._scaler = torch.amp.GradScaler(gang.device.type, enabled=recipe.precision == "fp16")
        if recipe.compile:
            self.network.compile()
        self._parallel = gang.wrap(self.network, static_graph=not recipe.compile and recipe.accumulate == 1)

    @property
    def result(self) -> nn.Module:
        """The network that is evaluated and exported: the average where there is one."""
        return self.average if self.average is not None else self.network

    def begin(self) -> None:
        """Get ready to learn: all but what is frozen is in training mode."""
        train_mode(self.network)

    def learn(self, images: Tensor, targets: Tensor, *, rate: float, step: int) -> Tensor:
        """One optimiser step on this rank's share of a batch, images N C H W; gives its mean loss, on the device.

        `targets` are classes (N) or probabilities (N K).
        """
        set_learning_rate(self.optimizer, rate)
        loss = self._gradients(images.contiguous(memory_format=self._memory_format), targets)
        if self.recipe.clip_norm is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()
        self._follow(step)
        return loss

    def rehearse(self, input_shape: tuple[int, int, int], *, batch_size: int) -> None:
        """Go forward and backward for nothing, images C H W, so that the first step is like every other.

        DDP orders the gradients by their arrival in a first pass (of a static graph, a second), and only then settles
        how they are sent. From three ranks on, that decides in which order they are added, and so the last bits.
        """
        before = [buffer.clone() for buffer in self.network.buffers()]
        images = torch.zeros(batch_size // self.recipe.accumulate, *input_shape, device=self._gang.device)
        for _ in range(2):
            with self._autocast():
                scores = self._parallel(images.contiguous(memory_format=self._memory_format))
            scores.sum().backward()
            self.optimizer.zero_grad()
        with torch.no_grad():
            for buffer, value in zip(self.network.buffers(), before, strict=True):
                buffer.copy_(value)

    @contextlib.contextmanager
    def predicting(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """The result as a function, images N C H W to class scores N K: same running statistics on every rank."""
        self._gang.sync_buffers(self.network)
        if self.average is not None:
            if self._averages_buffers:
                self._gang.sync_buffers(self.average)
            else:
                self._copy_buffers(self.average)
        with self._evaluating():
            yield self._predict

    @contextlib.contextmanager
    def predicting_as(self, state: dict[str, Any]) -> Iterator[Callable[[Tensor], Tensor]]:
        """The same with the result of another `state`, which every rank has; while open, the weights are that one's."""
        now = {name: value.clone() for name, value in self.result.state_dict().items()}
        self.result.load_state_dict(state["network"] if self.average is None else state["average"])
        try:
            with self._evaluating():
                yield self._predict
        finally:
            self.result.load_state_dict(now)

    def state(self) -> dict[str, Any]:
        """All that learning has changed."""
        if self.average is not None and not self._averages_buffers:
            self._copy_buffers(self.average)  # those of the last evaluation are another step's
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Back to a `state`."""
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        load_optimizer(self.optimizer, state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Whether every weight and running statistic is."""
        values = [value for value in self.result.state_dict().values() if value.is_floating_point()]
        return bool(torch.stack([value.isfinite().all() for value in values]).all())

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.result.training
        self.result.eval()
        try:
            yield
        finally:
            if was_training:
                train_mode(self.result)

    def _predict(self, images: Tensor) -> Tensor:
        with self._autocast():
            scores: Tensor = self.result(images.contiguous(memory_format=self._memory_format))
        return scores

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.recipe.channels_last else torch.contiguous_format

    def _autocast(self) -> torch.autocast:
        dtype = DTYPES[self.recipe.precision]
        return torch.autocast(self._gang.device.type, dtype, enabled=self.recipe.precision != "fp32")

    def _gradients(self, images: Tensor, targets: Tensor) -> Tensor:
        """Gradients of the mean loss over all parts; the gang averages them once, with the last part."""
        parts = self.recipe.accumulate
        total = torch.zeros((), device=images.device)
        pairs = list(zip(images.chunk(parts), targets.chunk(parts), strict=True))
        for number, (part_images, part_targets) in enumerate(pairs, start=1):
            with self._gang.averaging(self._parallel, now=number == parts):
                with self._autocast():
                    scores = self._parallel(part_images)
                    loss = self._loss(scores, part_targets) / parts
                self._scaler.scale(loss).backward()
            total += loss.detach()
        return total

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the average. Early on it keeps less than `decay`, or it would long remember the initial weights."""
        if self.average is None or self.recipe.ema is None:
            return
        decay = min(self.recipe.ema.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)
        if self._averages_buffers:
            for ours, theirs in zip(self.average.buffers(), self.network.buffers(), strict=True):
                if ours.is_floating_point():
                    ours.lerp_(theirs, 1 - decay)
                else:
                    ours.copy_(theirs)

    @property
    def _averages_buffers(self) -> bool:
        """Whether the average has running statistics of its own, and not the network's."""
        return self.recipe.ema is not None and self.recipe.ema.buffers == "average"

    @torch.no_grad()
    def _copy_buffers(self, network: nn.Module) -> None:
        for ours, theirs in zip(network.buffers(), self.network.buffers(), strict=True):
            ours.copy_(theirs)
