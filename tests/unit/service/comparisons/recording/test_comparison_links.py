"""A comparison leads to its pages in MLflow once it has a run there: in REST, the report, and the command."""

import pytest

from service.comparisons.recording.rows import StudyRunRows
from service.domain.mlflow_links import run_link, view_link
from service.studies.store import StudyStore
from tests.support.studies.rows import GOOD, begun

BASE = "https://mlflow.example"
pytestmark = pytest.mark.parametrize("settings", [{"mlflow_public_url": BASE}], indirect=True)


def test_view_list_and_report_link_to_mlflow_once_there_is_a_run(http, database):
    study = begun(StudyStore(database), [GOOD] * 6)
    path = f"/v1/comparisons/{study.id}"
    assert (http.get(path).json()["links"]["mlflow"], http.get(path).json()["links"]["mlflow_charts"]) == (None, None)
    assert "Curves of the variants" not in http.get(f"{path}/report").text
    rows = StudyRunRows(database)
    rows.ensure(study.id)
    rows.note_run(study.id, instead_of=None, run_id="abc", experiment_id="7")
    charts = view_link(BASE, "7", f"cbam-{study.id}")
    for view in (http.get(path).json(), http.get("/v1/comparisons").json()["items"][0]):
        assert view["links"]["mlflow"] == run_link(BASE, "abc", "7")
        assert view["links"]["mlflow_charts"] == charts
    assert f'href="{charts.replace("&", "&amp;")}"' in http.get(f"{path}/report").text
    assert f"({charts})" in http.get(f"{path}/report?format=markdown").text
