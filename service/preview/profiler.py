"""Has networks measured by a process of its own, one at a time, and remembers what it was told."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbam_core.explain.site import AttentionSite
from cbam_core.spec import ModelSpec, TimmOptimizerSpec
from service.errors import InvalidField, PreviewUnavailable

MEASURE_SECONDS = 120.0  # a cold start of torch on a busy machine is half of it
MOST_WAITING = 64
MOST_OF_ONE_CALLER = 8
REMEMBERED = 256
LONGEST_ANSWER_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Measured:
    """What a network costs; see `cbam_core.explain`."""

    parameters: int
    macs: int
    sites: tuple[AttentionSite, ...]
    kept_bytes_per_image: int
    largest_kept_bytes: int
    inner_attention: int = 0
    trainable_parameters: int | None = None
    lr_scales: tuple[tuple[float, int], ...] = ()
    """Factors of the learning rate, and how many parameters have each."""
    weights: Mapping[str, Any] | None = None
    """What a weights file gives to the network, as `WeightsReport.to_dict`; None where none was looked at."""

    @property
    def learning(self) -> int:
        """Parameters that learn."""
        return self.parameters if self.trainable_parameters is None else self.trainable_parameters


@dataclass(frozen=True, kw_only=True)
class Question:
    """A network to measure, and how it begins to learn. `weights` is the file and the folders it may lie in."""

    model: ModelSpec
    channels: int
    classes: int
    image_size: int
    layer_decay: float | None = None
    attention_lr_scale: float = 1.0
    weights: tuple[Path, tuple[str, ...]] | None = None

    def to_json(self) -> str:
        """As the worker process takes it."""
        fields: dict[str, Any] = {
            "model": self.model.model_dump(mode="json"),
            "channels": self.channels,
            "classes": self.classes,
            "image_size": self.image_size,
            "rates": {"layer_decay": self.layer_decay, "attention": self.attention_lr_scale},
        }
        if self.weights is not None:
            path, roots = self.weights
            fields["weights"] = {"path": str(path), "roots": list(roots)}
        return json.dumps(fields, sort_keys=True)


def _measured(answer: dict[str, Any]) -> Measured:
    sites = tuple(AttentionSite(**site) for site in answer["sites"])
    scales = tuple((scale, count) for scale, count in answer["lr_scales"])
    return Measured(**answer | {"sites": sites, "lr_scales": scales})


class NetworkProfiler:
    """Asks the worker process; starts it when it is needed and not there."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._waiting: Counter[str] = Counter()  # by caller
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()

    async def measure(self, question: Question, *, caller: str) -> Measured:
        """Measure a network. Raises InvalidField (it cannot be built, its weights do not fit), PreviewUnavailable (too
        many ask, or it takes too long).
        """
        return _measured(await self._answer(question.to_json(), "/model", caller))

    def known(self, question: Question) -> Measured | None:
        """What a network costs, where that was asked for before; None where it would have to be measured."""
        answer = self._known.get(question.to_json())
        return None if answer is None else _measured(answer)

    async def check_optimizer(self, optimizer: TimmOptimizerSpec, *, caller: str) -> None:
        """Try the options of an optimiser. Raises InvalidField (it refuses them), PreviewUnavailable."""
        request = json.dumps({"optimizer": optimizer.model_dump(mode="json")}, sort_keys=True)
        await self._answer(request, "/train/optimizer", caller)

    async def _answer(self, request: str, pointer: str, caller: str) -> dict[str, Any]:
        """The worker's answer to a request about what is at `pointer` of a spec."""
        if request not in self._known:
            if self._waiting[caller] >= MOST_OF_ONE_CALLER:
                raise PreviewUnavailable(f"{self._waiting[caller]} previews of {caller} wait already; ask again later")
            if self._waiting.total() >= MOST_WAITING:
                raise PreviewUnavailable("too many previews are asked for at once")
            self._waiting[caller] += 1
            try:
                async with self._turn:
                    self._known.setdefault(request, await self._ask(request, pointer))
            finally:
                self._waiting[caller] -= 1
                self._waiting += Counter()  # forgets whose count is zero
        self._known.move_to_end(request)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return self._known[request]

    async def close(self) -> None:
        """End the worker process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _ask(self, request: str, pointer: str) -> dict[str, Any]:
        if (known := self._known.get(request)) is not None:  # whoever stood before in the line asked the same
            return known
        try:
            async with asyncio.timeout(MEASURE_SECONDS):
                answer = await self._exchange(request) or await self._exchange(request)  # it may just have gone idle
        except BaseException as error:  # an answer that nobody waits for must not be the next one's
            await self.close()
            if isinstance(error, TimeoutError):
                raise PreviewUnavailable(f"the network was not built within {MEASURE_SECONDS:.0f} s") from error
            raise
        if not answer:
            raise PreviewUnavailable("the process that builds networks ended; is torch installed here?")
        fields: dict[str, Any] = json.loads(answer)
        if "refused" in fields:
            raise InvalidField(fields.get("pointer", pointer), fields["refused"])
        return fields

    async def _exchange(self, request: str) -> bytes:
        """The worker's answer, or nothing where it ended."""
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service.preview.profiler_process"),
                stdin=PIPE,
                stdout=PIPE,
                limit=LONGEST_ANSWER_BYTES,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{request}\n".encode())
            await self._process.stdin.drain()
            answer = await self._process.stdout.readline()
        except ConnectionError:
            answer = b""
        if not answer:
            await self.close()
        return answer
