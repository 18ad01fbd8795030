"""Has a service train the runs that are missing, and keeps each as a file as soon as it has ended.

Nothing is remembered but the files: a start asks the service what there is of the comparison, and submits what is not.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.evidence.plan import Plan, PlannedRun
from benchmarks.evidence.records import Record, read_records, write_record
from service.client.client import Client
from service.domain.states import TERMINAL, State, has_diverged
from service.schemas.experiments import ExperimentView

LOOK_SECONDS = 2.0
PREDICTIONS = "export/predictions.parquet"
WEIGHTS = "export/model.safetensors"


class RunsFailed(Exception):
    """Runs that ended without a result; the next start tries them again."""


def finish(
    client: Client,
    plan: Plan,
    folder: Path,
    *,
    show: Callable[[PlannedRun, Path], None],
    look_seconds: float = LOOK_SECONDS,
) -> Mapping[str, Record]:
    """Wait until every run of the plan is a file in `folder`; gives them all. `show` gets the weights of the shown one.

    Raises RunsFailed where some cannot, once no other is going on.
    """
    records = read_records(folder, plan)
    missing = [run for run in plan.runs if run.file not in records]
    if not missing:
        return records
    known = _known(client, plan)
    if not known and not records:
        client.compare(plan.comparison, idempotency_key=f"evidence-{plan.comparison.name}")
    elif not _is_compared(client, plan):
        _submit(client, [run for run in missing if run.spec.name not in known])
    for run in missing:
        view = known.get(run.spec.name)
        if view is not None and _has_failed(view) and "retry" in view.actions:
            client.retry(view.id)
    for run, view in _ended(client, plan, missing, look_seconds):
        write_record(folder, run, _record(client, plan, run, view, show))
        print(f"{folder / run.file}: {view.metrics.get(plan.comparison.metric, 'diverged')}", flush=True)
    return read_records(folder, plan)


def _known(client: Client, plan: Plan) -> dict[str, ExperimentView]:
    """What the service has of the comparison, by name; of two, the newer."""
    views = list(client.list(tag=[f"comparison:{plan.comparison.name}"], page_size=200, spec=False))
    return {view.name: view for view in reversed(views)}


def _is_compared(client: Client, plan: Plan) -> bool:
    """Whether a comparison of the service's own begins the runs, block by block."""
    return any(view.name == plan.comparison.name for view in client.comparisons())


def _submit(client: Client, runs: list[PlannedRun]) -> None:
    """Submit as experiments of their own, with the specs and seeds that the comparison would have given them."""
    for run in runs:
        client.submit(run.spec, idempotency_key=f"evidence-{run.spec.name}")


def _ended(
    client: Client, plan: Plan, missing: list[PlannedRun], look_seconds: float
) -> Iterator[tuple[PlannedRun, ExperimentView]]:
    """Each run once it has ended with a result. Raises RunsFailed for the rest, once nothing of them is open."""
    waiting = {run.spec.name: run for run in missing}
    while waiting:
        known = _known(client, plan)
        for name in [name for name in waiting if name in known and known[name].state in TERMINAL]:
            if not _has_failed(known[name]):
                yield waiting.pop(name), known[name]
        ended = [known[name] for name in waiting if name in known and known[name].state in TERMINAL]
        if waiting and len(ended) == len(waiting):
            raise RunsFailed("\n".join(f"{view.name}: {view.state} {view.reason}: {view.message}" for view in ended))
        time.sleep(look_seconds if waiting else 0)


def _has_failed(view: ExperimentView) -> bool:
    """Whether it ended without a result; a run that diverged has one."""
    return view.state in TERMINAL and view.state is not State.SUCCEEDED and not has_diverged(view.state, view.reason)


def _record(
    client: Client, plan: Plan, run: PlannedRun, view: ExperimentView, show: Callable[[PlannedRun, Path], None]
) -> Record:
    if view.state is not State.SUCCEEDED:
        return Record.of(run, view, None, metric=plan.comparison.metric)
    with TemporaryDirectory() as folder:
        (predictions,) = client.download(view.id, PREDICTIONS, to=folder)
        if run.is_shown:
            (weights,) = client.download(view.id, WEIGHTS, to=folder)
            show(run, weights)
        return Record.of(run, view, predictions, metric=plan.comparison.metric)
