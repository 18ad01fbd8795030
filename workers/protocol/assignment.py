"""What one rank of one attempt is told to do. Plain data, so that it crosses processes as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from cbam_core.semantics import CURRENT, Semantics
from cbam_core.spec import ExperimentSpec
from workers.protocol.probe import Probe
from workers.protocol.storage import ExperimentFolder


@dataclass(frozen=True)
class Assignment:
    """One rank's share of one attempt.

    `token` is the lease under which the attempt runs and stands in its result. The ranks meet at
    `master_address:master_port`, which rank 0 opens. A dataset may be read only below one of `data_roots`,
    and downloaded there where `allow_download` says so. A training that gives no sign of life for `hang_seconds`, or 10
    steps, ends itself.
    `node_gpus` are the GPUs of the whole gang on this rank's node: every rank there sees all of them, in one order, so
    that peers can reach each other's memory; `gpu_index` is this rank's own among them.
    `semantics` is the meaning that the experiment began with, and `spec` says by it what it leaves to a default.
    `probe` asks to measure what `spec` costs against a control, and to train nothing.
    `traceparent` says to which trace the attempt belongs, where traces are wanted.
    """

    experiment_id: str
    attempt: int
    token: str
    spec: ExperimentSpec
    storage: str
    rank: int = 0
    world_size: int = 1
    master_address: str = "127.0.0.1"
    master_port: int = 0
    tracking_uri: str | None = None
    data_roots: tuple[str, ...] = ()
    allow_download: bool = False
    hang_seconds: float = 300.0
    node_gpus: tuple[str, ...] = ()
    gpu_index: int = 0
    traceparent: str | None = None
    semantics: Semantics = CURRENT
    probe: Probe | None = None

    @property
    def folder(self) -> ExperimentFolder:
        """The experiment's files on shared storage."""
        return ExperimentFolder(Path(self.storage), self.experiment_id)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        lists = {"data_roots": list(self.data_roots), "node_gpus": list(self.node_gpus)}
        probe = None if self.probe is None else self.probe.to_dict()
        return vars(self) | {"spec": self.spec.model_dump(mode="json"), "probe": probe} | lists

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Back from `to_dict`."""
        spec = ExperimentSpec.model_validate(value["spec"])
        tuples = {name: tuple(value[name]) for name in ("data_roots", "node_gpus")}
        probe = Probe.from_dict(value["probe"]) if value.get("probe") else None
        return cls(**{**value, "spec": spec, "probe": probe, **tuples})

    def for_rank(self, rank: int) -> Self:
        """The same attempt, for another rank."""
        return replace(self, rank=rank)
