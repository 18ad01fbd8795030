"""`python -m workers spec.yaml`: the same training with no service and no Ray, alone or under torchrun.

Run again with the same --storage and --id, it goes on from the last checkpoint. SIGTERM and Ctrl-C write a checkpoint
and end it. MLflow is told where MLFLOW_TRACKING_URI is set.
"""

import argparse
import json
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from cbam_core.data_roots import ANYWHERE
from cbam_core.errors import CbamError
from cbam_core.printable import escaped
from cbam_core.semantics import CURRENT, EARLIEST, Semantics, as_meant, known
from cbam_core.spec import ExperimentSpec, read_spec
from cbam_core.tags import WHY_RESERVED, reserved
from workers.preload import load_training
from workers.protocol.assignment import Assignment
from workers.protocol.outcome import Outcome
from workers.protocol.stop import StopSignal
from workers.protocol.storage import ExperimentFolder, folder_name, write_once
from workers.runtime.progress_display import Display, display_for

EXIT_CODES = {"succeeded": 0, "failed": 1, "paused": 75, "cancelled": 130}  # 75: EX_TEMPFAIL, run me again
BAD_SPEC = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one spec; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        spec = read_spec(options.spec)
        rank, world_size = _place(spec)
        folder = _folder(options.storage, options.id or folder_name(spec.name))
    except CbamError as error:
        print(escaped(str(error)), file=sys.stderr)
        return BAD_SPEC
    if not folder.spec.exists() and (names := reserved(spec.tags)):
        print(f"{options.spec}: tags {', '.join(names)}: {WHY_RESERVED}", file=sys.stderr)
        return BAD_SPEC
    if not _same_spec(folder, spec):
        print(f"{folder.path} holds another experiment; choose another --id, or --storage", file=sys.stderr)
        return BAD_SPEC
    try:
        semantics = _semantics(folder)
    except CbamError as error:
        print(f"{folder.path}: {error}", file=sys.stderr)
        return BAD_SPEC
    load_training()
    assignment = _assignment(as_meant(spec, semantics), folder, rank, world_size, semantics=semantics)
    with display_for(sys.stderr, quiet=rank > 0) as display:
        outcome = _train(assignment, display)
    if rank == 0:
        _say_how_it_ended(outcome, assignment, as_json=options.json)
    return EXIT_CODES[outcome.outcome]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("spec", type=Path, help="the experiment, YAML or JSON")
    parser.add_argument("--storage", default="runs", help="where logs, checkpoints and weights go (default: ./runs)")
    parser.add_argument("--id", help="name of the experiment's folder in it (default: the spec's name)")
    parser.add_argument("--json", action="store_true", help="print how it ended as JSON")
    return parser


def _place(spec: ExperimentSpec) -> tuple[int, int]:
    """This process's rank and the number of ranks, as torchrun says them. Raises CbamError where the spec disagrees."""
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world_size not in spec.world_sizes:
        raise CbamError(
            f"{spec.name}: resources.workers is {spec.resources.workers}, but {world_size} process(es) run; "
            f"use: torchrun --nproc-per-node={spec.resources.workers} -m workers …"
        )
    return rank, world_size


def _folder(storage: str, name: str) -> ExperimentFolder:
    """Where this training's files go. Raises CbamError where the name cannot be a folder's."""
    try:
        return ExperimentFolder(Path(storage).resolve(), name)
    except ValueError as error:
        raise CbamError(f"--id: {error}") from error


def _same_spec(folder: ExperimentFolder, spec: ExperimentSpec) -> bool:
    """Whether the folder is new, or of this very spec: a checkpoint continues only the training it comes from."""
    if not folder.spec.exists():
        write_once(folder.semantics, f"{CURRENT}\n")
    write_once(folder.spec, spec.to_yaml())
    return read_spec(folder.spec) == spec


def _semantics(folder: ExperimentFolder) -> Semantics:
    """The meaning that the experiment began with. Raises SpecError where a later version began it."""
    if not folder.semantics.exists():
        return EARLIEST
    number = folder.semantics.read_text("utf-8").strip()
    return known(int(number) if number.isdecimal() else 0)


def _assignment(
    spec: ExperimentSpec, folder: ExperimentFolder, rank: int, world_size: int, *, semantics: Semantics
) -> Assignment:
    address = os.environ.get("MASTER_ADDR", "127.0.0.1").strip("[]")
    port = int(os.environ.get("MASTER_PORT", "29500"))
    attempt, token = folder.last_attempt() + 1, secrets.token_hex(8)
    if world_size > 1:
        from workers.train.distributed import agree_on_attempt

        attempt, token = agree_on_attempt(attempt, token, rank=rank, world_size=world_size, address=(address, port))
    return Assignment(
        experiment_id=folder.experiment_id,
        attempt=attempt,
        token=token,
        spec=spec,
        semantics=semantics,
        storage=str(folder.storage_root),
        rank=rank,
        world_size=world_size,
        master_address=address,
        master_port=port,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"),
        data_roots=ANYWHERE.folders,  # who runs it by hand is the operator, and may link to what is elsewhere
        allow_download=True,
    )


def _train(assignment: Assignment, display: Display) -> Outcome:
    from workers.attempt import run

    stop = StopSignal()

    def ask_to_pause(_number: int, _frame: FrameType | None) -> None:
        stop.request("pause")

    before = {number: signal.signal(number, ask_to_pause) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return run(assignment, stop=stop, report=display.show)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_how_it_ended(outcome: Outcome, assignment: Assignment, *, as_json: bool) -> None:
    if as_json:
        told = {name: value for name, value in outcome.to_dict().items() if name != "token"}
        print(escaped(json.dumps({"folder": str(assignment.folder.path), **told}, indent=2, ensure_ascii=False)))
        return
    print(f"{outcome.outcome} at step {outcome.step}: {assignment.folder.path}")
    for name, value in outcome.metrics.items():
        print(f"  {name:<16} {value:.6g}")
    for name, value in outcome.summary.items():
        if value is not None and not isinstance(value, dict):  # what of a weights file was loaded is in the log
            print(f"  {name:<16} {value:.6g}" if isinstance(value, float) else f"  {name:<16} {value}")
    if outcome.outcome == "paused":
        print("run the same command again to go on from there")
    if outcome.message:
        print(escaped(f"{outcome.reason}: {outcome.message}"), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
