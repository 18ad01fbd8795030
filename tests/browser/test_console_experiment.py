"""One experiment in a real browser: what it does, what it logged, what can be asked of it."""

import re

import pytest
from playwright.sync_api import expect
from sqlalchemy import update

from service.api.app import create_app
from service.database.models.experiments import Experiment
from tests.browser.console_page import HOSTILE, SIZES, THEMES, tab_to
from tests.support.live_server import serving
from tests.support.ports import free_port
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until
from workers.protocol.storage import ExperimentFolder
from workers.tracking.journal import Journal

pytestmark = pytest.mark.browser
TRAIN = {"epochs": 20, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
ESCAPES = f"\x1b[32mINFO\x1b[0m {HOSTILE} \x1b]0;a title\x07the end of the line"


@pytest.fixture
def running(client, live):
    """It has two workers, and trains on."""
    spec = spec_dict(name="resnet20-cbam", train=TRAIN, resources={"workers": 2, "cpus_per_worker": 1})
    experiment = client.submit(spec | {"description": f"What for? {HOSTILE}", "tags": {"paper": "cbam"}})
    live.cluster.steps_per_look = 1
    wait_until(lambda: client.get(experiment.id).view.state == "RUNNING", "it runs")
    live.cluster.steps_per_look = 0
    return experiment


@pytest.fixture
def folder(settings, running):
    return ExperimentFolder(settings.storage_root, running.id)


@pytest.fixture
def journal(folder):
    journal = Journal(folder.journal)
    yield journal
    journal.close()


def log(folder, rank, text):
    path = folder.attempt(1).log(rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def train(journal, first, last):
    for step in range(first, last):
        loss = 2.3 / (1 + step / 20)
        journal.append_metrics(step, {"train/loss": loss, "lr": 0.05 * (1 - step / 400)}, 1000 * step)
        if step % 10 == 9:
            top1 = step / (step + 30)
            journal.append_metrics(step, {"val/loss": loss * 1.1, "val/top1": top1}, 1000 * step)


def wait_for_legend(page, title, text):
    figure = page.locator("figure.plot").filter(has=page.locator("figcaption", has_text=title))
    expect(figure.locator(".legend")).to_contain_text(text, timeout=5_000)
    return figure


def test_curves_grow_while_it_trains(console, running, journal):
    train(journal, 0, 100)
    page = console.open(f"#/experiments/{running.id}")
    figure = wait_for_legend(page, "loss", "val/loss")
    assert figure.locator("canvas").evaluate(DRAWN) > 500
    expect(figure.locator(".legend")).to_contain_text("step 99")
    journal.append_metrics(100, {"train/loss": 0.125}, 0)
    wait_for_legend(page, "loss", "0.125")
    journal.append_metrics(100, {"val/loss": 0.25}, 0)
    wait_for_legend(page, "loss", "0.25")
    expect(figure.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"train/loss: 0\.125 at step 100"))


DRAWN = """canvas => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.filter((value, place) => place % 4 === 3 && value > 100).length;
}"""


def test_the_log_of_each_rank_is_followed_and_searched(console, running, folder):
    log(folder, 0, f"{ESCAPES}\nepoch 1 of 20\n")
    log(folder, 1, "the other rank\n")
    page = console.open(f"#/experiments/{running.id}")
    text = page.get_by_role("region", name="Log of rank 0")
    expect(text).to_contain_text(f"INFO {HOSTILE} the end of the line")
    assert "\x1b" not in text.inner_text()
    log(folder, 0, "epoch 2 of 20\n")
    expect(text).to_contain_text("epoch 2 of 20", timeout=5_000)
    page.get_by_label("Search").fill("EPOCH 2")
    expect(text).to_have_text("epoch 2 of 20")
    expect(page.get_by_text("1 of 3 lines")).to_be_visible()
    page.locator("select").select_option("1")
    page.get_by_label("Search").fill("")
    expect(page.get_by_role("region", name="Log of rank 1")).to_have_text("the other rank")
    assert page.locator("main img").count() == 0


def test_what_is_hostile_stays_text(console, live, running):
    with live.store.database.writing() as session:
        session.execute(update(Experiment).where(Experiment.id == running.id).values(name=HOSTILE, tags={"a": HOSTILE}))
    page = console.open(f"#/experiments/{running.id}")
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    expect(page.locator(".description")).to_have_text(f"What for? {HOSTILE}")
    assert page.locator("main img").count() == 0
    assert page.title() == f"{HOSTILE} · cbam-lab"


def test_buttons_follow_the_state(console, client, live, running):
    page = console.open(f"#/experiments/{running.id}")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(page.get_by_role("button", name="Delete")).to_have_count(0)
    tab_to(page, page.get_by_role("button", name="Cancel"))
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Back").click()
    assert client.get(running.id).view.desired == "run"
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".head .state")).to_contain_text("paused")
    expect(page.locator(".moves")).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("row").filter(has_text="2").last).to_be_visible()
    live.cluster.steps_per_look = 100
    expect(page.locator(".head .state")).to_contain_text("succeeded")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("There are no experiments yet")).to_be_visible()


def test_a_clone_tells_what_is_not_as_before_and_what_cannot_be(console, running):
    page = console.open(f"#/experiments/{running.id}")
    page.get_by_text("Clone with changes").click()
    page.get_by_label("Changes, one").fill("train.epochs = -1")
    page.get_by_role("button", name="Submit the clone").click()
    expect(page.get_by_role("alert")).to_contain_text("/train/epochs")
    page.get_by_label("Changes, one").fill("train.epochs = 3\nname = shorter")
    page.get_by_role("button", name="Submit the clone").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("shorter")
    changes = page.get_by_role("table", name="Changes of the spec")
    expect(changes.get_by_role("row").filter(has_text="train.epochs")).to_contain_text(re.compile("20.*3"))


def test_files_are_saved_with_the_token_and_pictures_are_shown(console, running, folder):
    log(folder, 0, "one line\n")
    figures = folder.journal.parent / "figures"
    figures.mkdir()
    (figures / "matrix.png").write_bytes(PNG)
    page = console.open(f"#/experiments/{running.id}")
    expect(page.get_by_role("img", name="matrix.png")).to_be_visible()
    with page.expect_download() as saved:
        page.get_by_role("button", name="rank-0.log").click()
    assert saved.value.path().read_text() == "one line\n"


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES, ids=["wide", "phone"])
def test_everybody_can_use_it(console, running, journal, folder, theme, size):
    train(journal, 0, 200)
    log(folder, 0, f"{ESCAPES}\n" + "".join(f"epoch {n}/20  step {10 * n}  val/top1 0.8{n}\n" for n in range(20)))
    console.page.emulate_media(color_scheme=theme)
    console.page.set_viewport_size(size)
    page = console.open(f"#/experiments/{running.id}")
    wait_for_legend(page, "top1", "%")
    expect(page.get_by_role("region", name="Log of rank 0")).to_contain_text("epoch 19/20")
    console.picture(f"experiment-{theme}-{size['width']}")
    page.get_by_text("Clone with changes").click()
    page.get_by_text(re.compile(r"All \d+ fields")).click()
    assert console.axe() == []
    assert not console.scrolls_sideways()


def test_what_is_not_there_says_what_to_do(console, page):
    console.open("#/experiments/nonsense")
    expect(page.get_by_role("alert")).to_contain_text("Go back to the list")
    assert console.axe() == []
    console.open("#/nonsense")
    expect(page.get_by_role("heading", name="No such page")).to_be_visible()


def test_after_a_restart_of_the_server_it_goes_on_and_loses_no_line(console, page, settings, running, folder):
    """A second server over the same rows stands for one that is started anew."""
    port = free_port()
    with serving(create_app(settings), port=port) as url:
        console.url = url
        log(folder, 0, "before\n")
        console.open(f"#/experiments/{running.id}")
        text = page.get_by_role("region", name="Log of rank 0")
        expect(text).to_have_text("before")
    expect(page.get_by_text("The server does not answer. Reconnecting")).to_be_visible()
    log(folder, 0, "meanwhile\n")
    with serving(create_app(settings), port=port):
        expect(text).to_have_text("before\nmeanwhile", timeout=30_000)
        expect(page.get_by_text("The server does not answer. Reconnecting")).to_have_count(0)
        page.goto("about:blank")
