"""Tags by which the service and MLflow say what a run is are not a user's to give."""

import pytest

from service.database.models.experiments import Experiment
from tests.support.specs import spec_dict

NAMES = ["cbam.experiment_id", "cbam.creation", "mlflow.runName", "mlflow.note.content", "MLflow.user", "cbam./x"]
ALLOWED = {"cbam": "a", "mlflow": "b", "paper/cbam.x": "c", "my.cbam.experiment_id": "d"}


def complaint(answer):
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert "kept for the service and MLflow" in error["detail"]
    return error["pointer"]


@pytest.fixture
def path(http):
    return http.post("/v1/experiments", json=spec_dict(tags=ALLOWED)).headers["Location"]


@pytest.mark.parametrize("name", NAMES)
def test_they_are_refused_by_name_wherever_tags_are_given(http, path, name):
    pointer, tags = f"/tags/{name.replace('/', '~1')}", ALLOWED | {name: "x"}
    assert complaint(http.post("/v1/experiments", json=spec_dict(tags=tags))) == pointer
    assert complaint(http.post("/v1/experiments/preview", json=spec_dict(tags=tags))) == pointer
    from_template = {"template": "digits-cbam", "overrides": {"tags": tags}}
    assert complaint(http.post("/v1/experiments", json=from_template)) == pointer
    assert complaint(http.patch(path, json={"tags": tags})) == pointer
    assert complaint(http.post(f"{path}/clone", json={"tags": {name: "x"}})) == pointer
    assert http.get(path).json()["tags"] == ALLOWED


def test_many_of_them_are_told_within_bounds(http):
    answer = http.post("/v1/experiments", json=spec_dict(tags={f"cbam.{number}": "" for number in range(64)}))
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 20)


def test_what_was_stored_with_them_still_loads_and_runs(http, path, store):
    with store.database.writing() as session:
        row = session.get(Experiment, path.rsplit("/", 1)[-1])
        row.spec = row.spec | {"tags": {"cbam.experiment_id": "x"}}
        row.tags = {"cbam.experiment_id": "x"}
    assert http.get(path).json()["tags"] == {"cbam.experiment_id": "x"}
    assert http.patch(path, json={"priority": 3}).status_code == 200
    assert complaint(http.post(f"{path}/clone", json={})) == "/tags/cbam.experiment_id"
    without = http.post(f"{path}/clone", json={"tags": {"cbam.experiment_id": None}})
    assert without.status_code == 201
    assert http.post(f"{path}/cancel").status_code in (200, 202)
