"""Every link into MLflow says that its training pages are meant; what they open is seen in tests/browser."""

import pytest

from service.api.views import experiment_view
from service.cli.commands.stack import addresses
from service.dispatcher.store import AttemptEnd, ProgressUpdate
from service.domain.mlflow_links import experiment_link, home_link, run_link, view_link
from service.domain.states import Move, Reason, State
from service.settings import Settings
from service.stack.record import StackRecord
from tests.support.specs import spec

BASE = "http://mlflow.example:5001/"
HERE = "http://mlflow.example:5001/#/experiments"
TRAINING = "workflowType=machine_learning"


@pytest.mark.parametrize(
    ("link", "page"),
    [
        (home_link(BASE), f"{HERE}?{TRAINING}"),
        (experiment_link(BASE, "7"), f"{HERE}/7/runs?{TRAINING}"),
        (run_link(BASE, "abc", "7"), f"{HERE}/7/runs/abc?{TRAINING}"),
        (run_link(BASE, "abc", None), f"http://mlflow.example:5001/#/runs/abc?{TRAINING}"),
        (view_link(BASE, "7", "cbam-1"), f"{HERE}/7/runs?viewStateShareKey=cbam-1&compareRunsMode=CHART&{TRAINING}"),
        (run_link(BASE, "a/b?c#d", "7"), f"{HERE}/7/runs/a%2Fb%3Fc%23d?{TRAINING}"),
    ],
)
def test_each_page_is_asked_for_in_the_training_mode(link, page):
    assert link == page


def test_the_stack_shows_the_training_pages_of_its_mlflow(tmp_path):
    record = StackRecord(stack_id="s", ports={"api": 1, "mlflow": 2, "ray": 3})
    assert addresses(record)["MLflow"] == f"http://127.0.0.1:2/#/experiments?{TRAINING}"


def linked(row) -> str | None:
    return experiment_view(row, Settings(mlflow_public_url=BASE)).links.mlflow


def test_an_experiment_links_to_its_run_while_it_runs_and_once_it_has_ended(dispatcher_store, store):
    row, _ = store.submit(spec())
    assert linked(store.get(row.id)) is None
    dispatcher_store.claim(dispatcher_store.queue()[0], 1)
    dispatcher_store.note_progress([ProgressUpdate(row.id, 1, {"metrics": {}}, "run", "7")])
    assert linked(store.get(row.id)) == run_link(BASE, "run", "7")
    dispatcher_store.note_progress([ProgressUpdate(row.id, 1, {"metrics": {}}, None)])
    assert linked(store.get(row.id)) == run_link(BASE, "run", "7"), "what is known stays known"
    ((live, _),) = dispatcher_store.live()
    dispatcher_store.apply(live, Move(State.FAILED, Reason.USER_ERROR), AttemptEnd(run_id="other", run_in="8"))
    assert linked(store.get(row.id)) == run_link(BASE, "other", "8")
    dispatcher_store.close_run(store.get(row.id), "third", "9")
    assert linked(store.get(row.id)) == run_link(BASE, "third", "9")
