"""What a reviewer sees of a comparison, in a browser that has never seen MLflow: each link of ours opens its page."""

import shutil

import pytest
from mlflow import MlflowClient
from playwright.sync_api import expect

from service.comparisons.recording.__main__ import tell_all
from service.comparisons.recording.recorder import Recorder, Target
from service.comparisons.recording.rows import StudyRunRows
from service.comparisons.recording.view_state import view_key
from service.comparisons.result import result_of
from service.database.engine import Database
from service.domain.mlflow_links import experiment_link, home_link, run_link, view_link
from service.studies.store import StudyStore
from tests.support.mlflow_server import MlflowServer
from tests.support.studies.recorded import begin, end, finish_block
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    """An MLflow; made after the browser, so that nothing starts where there is none."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def told(server, tmp_path_factory, migrated_file):
    """A comparison that MLflow was told of: its result, and the ids of its parent run and MLflow's experiment."""
    storage = tmp_path_factory.mktemp("storage")
    database = Database(f"sqlite:///{shutil.copy(migrated_file, storage.parent)}")
    client, studies, rows = MlflowClient(server.uri), StudyStore(database), StudyRunRows(database)
    study = begin(studies)
    for block in range(8):
        finish_block(database, study, block, storage=storage, client=client)
    end(database, study)
    assert tell_all(Recorder(client, rows, studies, Target(server.uri, storage, server.uri, "http://127.0.0.1:1"))) == 0
    row, view = rows.get(study.id), result_of(studies.get(study.id), studies.trials(study.id))
    database.close()
    return view, row.run_id, row.experiment_id


@pytest.fixture
def fresh(browser):
    """A page of a browser without any memory."""
    context = browser.new_context(viewport={"width": 1600, "height": 1100})
    yield context.new_page()
    context.close()


def shapes_of(lines) -> set[str]:
    """The different lines of a chart: each is drawn twice, the second one for what the mouse points at."""
    return set(lines.evaluate_all("paths => paths.map(path => path.getAttribute('d'))"))


def in_training_mode(page):
    """The menu of the training mode: GenAI's has no Runs."""
    expect(page.get_by_text("Model registry").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text("AI Gateway")).to_have_count(0)


def test_the_lists_open_in_the_training_mode(fresh, server, told):
    _, _, experiment_id = told
    fresh.goto(home_link(server.uri))
    in_training_mode(fresh)
    fresh.goto("about:blank")
    fresh.goto(experiment_link(server.uri, experiment_id))
    in_training_mode(fresh)
    expect(fresh.get_by_text("does cbam help").first).to_be_visible(timeout=PATIENCE_MS)


def test_the_page_of_a_comparison_says_its_verdict_in_words(fresh, server, told):
    view, run_id, experiment_id = told
    fresh.goto(run_link(server.uri, run_id, experiment_id))
    expect(fresh.get_by_role("heading", name="does cbam help")).to_be_visible(timeout=PATIENCE_MS)
    in_training_mode(fresh)
    words = view.summary[0].split("(")[0].strip()[:60]
    expect(fresh.get_by_text(words).first).to_be_visible(timeout=PATIENCE_MS)
    expect(fresh.get_by_text("wins–ties–losses").first).to_be_attached()
    expect(fresh.get_by_role("link", name="cbam", exact=True)).to_be_visible()
    fresh.get_by_role("tab", name="Artifacts").click()
    expect(fresh.get_by_text("comparison.svg").first).to_be_visible(timeout=PATIENCE_MS)


def test_the_saved_view_has_one_line_with_its_band_for_each_variant(fresh, server, told, tmp_path):
    view, _, experiment_id = told
    fresh.goto(view_link(server.uri, experiment_id, view_key(view.study_id)))
    in_training_mode(fresh)
    expect(fresh.get_by_text("Variants over their seeds")).to_be_visible(timeout=PATIENCE_MS)
    for variant in ("plain", "cbam"):
        expect(fresh.get_by_role("link", name=f"{variant} (mean of 8 seeds)")).to_be_visible(timeout=PATIENCE_MS)
    expect(fresh.get_by_text("2 matching runs")).to_be_visible()
    lines = fresh.locator(".js-plotly-plot").first.locator(".scatterlayer path.js-line")
    wait_until(lambda: len(shapes_of(lines)) == 2 * 3, "mean, low and high of two variants")
    fresh.screenshot(path=tmp_path / "view.png")


def test_the_table_of_the_saved_view_has_the_columns_that_one_looks_for(fresh, server, told):
    view, _, experiment_id = told
    fresh.goto(view_link(server.uri, experiment_id, view_key(view.study_id)).replace("=CHART", "=TABLE"))
    for column in ("test/top1", "val/top1", "parameters", "images_per_second", "model.attention.type"):
        expect(fresh.get_by_role("columnheader", name=column).first).to_be_attached(timeout=PATIENCE_MS)
