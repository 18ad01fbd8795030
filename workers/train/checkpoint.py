"""Checkpoints that are whole or do not count: a folder per step, complete only with its manifest, which comes last."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from cbam_core.errors import CheckpointError
from cbam_core.spec import CheckpointSpec
from workers.protocol.storage import MANIFEST, make_folder, write_atomically

logger = logging.getLogger(__name__)
STATE = "state.pt"


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds. `metrics` are those of the evaluation at this very step, empty where there was none."""

    step: int
    metrics: dict[str, float]
    bytes: int
    sha256: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises CheckpointError where the manifest is absent or makes no sense."""
        try:
            return cls(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{folder.name} has no readable manifest: {error}") from error


class Checkpoints:
    """The checkpoints of one experiment; rank 0 writes them, every rank reads them."""

    def __init__(self, folder: Path, policy: CheckpointSpec) -> None:
        self._folder = folder
        self._policy = policy
        self._damaged: set[int] = set()

    def save(self, step: int, state: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write `state` as the checkpoint of `step`, then delete what the policy does not keep.

        Nothing is deleted before all of the new one, and every folder on the way to it, outlasts a loss of power.
        """
        folder = self._folder / f"step-{step}"
        try:
            make_folder(self._folder, parents=False)  # that of a deleted experiment is not made again
            make_folder(folder, parents=False)
            (folder / MANIFEST).unlink(missing_ok=True)
            path = folder / STATE
            with path.open("wb") as file:
                torch.save(dict(state), file)
                file.flush()
                os.fsync(file.fileno())
            manifest = Manifest(step, dict(metrics), path.stat().st_size, _sha256(path))
            write_atomically(folder / MANIFEST, json.dumps(asdict(manifest)), parents=False)
            self._damaged.discard(step)
            self._prune()
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            if not (folder / MANIFEST).exists():
                shutil.rmtree(folder, ignore_errors=True)  # makes room for the record of this failure
            raise CheckpointError(f"cannot write the checkpoint of step {step}: {error}") from error

    def note(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add what an evaluation has given since to the checkpoint of `step`: it may be one of the best."""
        folder = self._folder / f"step-{step}"
        manifest = Manifest.read(folder)
        if metrics and not manifest.metrics:
            known = replace(manifest, metrics=dict(metrics))
            try:
                write_atomically(folder / MANIFEST, json.dumps(asdict(known)), parents=False)
            except OSError as error:
                raise CheckpointError(f"cannot write the manifest of step {step}: {error}") from error

    def newest(self) -> int | None:
        """The step of the newest checkpoint that is undamaged; damaged ones are passed over with a warning."""
        for step in sorted(self._steps(), reverse=True):
            try:
                self._verify(step)
            except CheckpointError as error:
                logger.warning("checkpoint skipped: %s", error)
                self._damaged.add(step)  # it must not take the place of a whole one that is to be kept
                continue
            return step
        return None

    def best(self) -> int:
        """The step of the best checkpoint by the policy's metric; -1 where there is none, or it is damaged."""
        policy = self._policy.model_copy(update={"keep_best": 1})
        for step in best_steps(self._manifests(), policy) if self._policy.keep_best else ():
            try:
                self._verify(step)
            except (CheckpointError, OSError) as error:
                logger.warning("the best checkpoint is not evaluated on test: %s", error)
                return -1
            return step
        return -1

    def load(self, step: int) -> dict[str, Any]:
        """The state saved at `step`, on the CPU. Nothing but tensors and plain values is unpickled."""
        path = self._folder / f"step-{step}" / STATE
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error
        return state

    def is_among_best(self, metrics: Mapping[str, float]) -> bool:
        """Whether a checkpoint with these metrics would be kept as one of the best."""
        if not self._policy.keep_best:
            return False
        ranked = [manifest for manifest in self._manifests() if self._policy.metric in manifest.metrics]
        best = best_steps([*ranked, Manifest(-1, dict(metrics), 0, "")], self._policy)
        return -1 in best

    def _steps(self) -> list[int]:
        names = (entry.name for entry in self._folder.glob("step-*"))
        return [int(name[5:]) for name in names if name[5:].isdigit()]

    def _manifests(self) -> list[Manifest]:
        manifests = []
        for step in set(self._steps()) - self._damaged:
            try:
                manifests.append(Manifest.read(self._folder / f"step-{step}"))
            except CheckpointError:
                continue
        return manifests

    def _verify(self, step: int) -> None:
        folder = self._folder / f"step-{step}"
        manifest = Manifest.read(folder)
        path = folder / STATE
        if not path.is_file() or path.stat().st_size != manifest.bytes:
            raise CheckpointError(f"{folder.name}: {STATE} is not the {manifest.bytes} bytes that the manifest says")
        if _sha256(path) != manifest.sha256:
            raise CheckpointError(f"{folder.name}: {STATE} does not have the SHA-256 that the manifest says")

    def _prune(self) -> None:
        kept = kept_steps(self._manifests(), self._policy)
        for step in self._steps():
            if step not in kept:
                folder = self._folder / f"step-{step}"
                (folder / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)


def kept_steps(manifests: Sequence[Manifest], policy: CheckpointSpec) -> set[int]:
    """The steps that stay: the newest `keep_last` and the best `keep_best`."""
    newest = sorted((manifest.step for manifest in manifests), reverse=True)[: policy.keep_last]
    return {*newest, *best_steps(manifests, policy)}


def best_steps(manifests: Sequence[Manifest], policy: CheckpointSpec) -> set[int]:
    """The `keep_best` steps with the best metric; of equal ones, the earlier. Steps without the metric do not count."""
    sign = -1 if policy.mode == "max" else 1
    ranked = [manifest for manifest in manifests if policy.metric in manifest.metrics]
    ranked.sort(key=lambda manifest: (sign * manifest.metrics[policy.metric], manifest.step))
    return {manifest.step for manifest in ranked[: policy.keep_best]}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
