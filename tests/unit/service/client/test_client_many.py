"""Many experiments in the hands of a Python user: as a data frame, as a table in a notebook, waited for together."""

import threading
from html.parser import HTMLParser

import pandas
import pytest

from service.api.app import create_app
from service.client import experiments as many
from service.client.client import Client
from service.client.errors import MissingExperiments
from service.client.experiment import ExperimentHandle
from service.client.experiments import Experiments
from service.client.notebook import MOST_ROWS
from service.client.waiting import WaitTimeout
from service.database.lease import Leadership
from service.dispatcher.store import AttemptEnd, DispatcherStore
from service.domain.states import Move, Reason, State
from tests.support.live_server import serving
from tests.support.only_extras import run_with_extras
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until

HOSTILE = "<script>alert(1)</script>"


class Counted:
    """Counts the requests that reach the app."""

    def __init__(self, app):
        self.app, self.paths = app, []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            self.paths.append(scope["path"])
        await self.app(scope, receive, send)


@pytest.fixture
def app(settings):
    return Counted(create_app(settings))


@pytest.fixture
def client(app, monkeypatch):
    monkeypatch.setattr(many, "LOOK_SECONDS", 0.1)
    with serving(app) as url, Client(url, tries=1) as client:
        yield client


@pytest.fixture
def leader(database):
    """What moves experiments in the place of a dispatcher."""
    leadership = Leadership(database, holder="test", seconds=60)
    leadership.renew()
    return DispatcherStore(database, leadership, backoff_seconds=0)


def run_next(leader):
    """The oldest experiment of the queue begins to run, and has measured something."""
    leader.claim(leader.queue()[0], 1)
    row = next(row for row, _ in leader.live() if row.state == State.STARTING)
    leader.apply(row, Move(State.RUNNING))


def end(leader, experiment_id, state=State.SUCCEEDED, reason=None, **more):
    row = next(row for row, _ in leader.live() if row.id == experiment_id)
    leader.apply(row, Move(state, reason), AttemptEnd(**more))


def test_a_frame_has_a_row_for_each_and_a_column_for_each_metric(client, leader):
    progress = {"metrics": {"test/top1": 0.75, "val/top1": 0.5, "images_per_second": 10.0}}
    summary = {"parameters": 123, "macs": 456, "images_per_second": 12.5, "wall_seconds": 3.0}
    first = client.submit(spec_dict(name="a", tags={"paper": "cbam"}))
    second = client.submit(spec_dict(name="b", train={"seed": 3}, model={"backbone": "resnet18"}))
    run_next(leader)
    end(leader, first.id, progress=progress, summary=summary)
    frame = client.experiments(sort="name").to_frame()
    columns = ["id", "name", "project", "state", "attention", "backbone", "dataset", "seed", "test/top1", "val/top1"]
    assert [*frame] == [*columns, "parameters", "macs", "images_per_second", "wall_seconds", "created_at", "tags"]
    assert [*frame["id"]] == [first.id, second.id]
    assert [*frame["state"]] == ["SUCCEEDED", "QUEUED"]
    assert [*frame["attention"]] == ["cbam", "none"]
    assert [*frame["backbone"]] == ["cifar_resnet20", "resnet18"]
    assert [*frame["seed"]] == [0, 3]
    assert frame["test/top1"][0] == 0.75
    assert pandas.isna(frame["test/top1"][1])
    assert frame.loc[0, ["parameters", "macs", "images_per_second", "wall_seconds"]].to_list() == [123, 456, 12.5, 3.0]
    assert frame["parameters"].dtype == "Int64"
    assert frame["parameters"].isna().to_list() == [False, True]
    assert frame["created_at"].to_list() == [first.view.created_at, second.view.created_at]
    assert [*frame["tags"]] == [{"paper": "cbam"}, {}]
    assert frame.groupby("attention")["test/top1"].mean()["cbam"] == 0.75


def test_a_frame_of_nothing_has_the_columns(client):
    frame = client.experiments(project="nobody's").to_frame()
    assert frame.empty
    assert {"id", "state", "parameters", "created_at"} <= {*frame}


def test_the_speed_of_what_has_not_ended_is_the_last_that_was_measured(client):
    view = client.submit(spec_dict()).view.model_copy(update={"metrics": {"images_per_second": 10.0}})
    frame = Experiments(client, [ExperimentHandle(client, view)]).to_frame()
    assert frame["images_per_second"].to_list() == [10.0]
    assert [*frame].count("images_per_second") == 1


def test_without_pandas_the_error_says_what_to_install():
    code = (
        "from service.client.frame import to_frame; from service.client.errors import NeedsPandas\n"
        "try: to_frame([])\nexcept NeedsPandas as error: print(error)"
    )
    ran = run_with_extras(code=code)
    assert "pip install pandas" in ran.stdout, ran.stderr


def test_experiments_are_a_sequence(client):
    ids = [client.submit(spec_dict(name=f"e{index}")).id for index in range(4)]
    found = client.experiments(sort="created_at")
    assert [one.id for one in found] == ids
    assert (len(found), found[1].id, [one.id for one in found[2:]]) == (4, ids[1], ids[2:])
    assert isinstance(found[2:], Experiments)
    assert [one.id for one in client.experiments(limit=3)] == ids[:0:-1]
    assert ids[0] in repr(found)


def test_views_of_ids_are_few_requests_and_leave_out_what_is_not_there(client, app, monkeypatch):
    monkeypatch.setattr("service.client.client.AT_ONCE", 3)
    ids = [client.submit(spec_dict()).id for _ in range(5)]
    before = len(app.paths)
    assert set(client.views([*ids, "nothere", ids[0]])) == {*ids}
    assert app.paths[before:] == ["/v1/experiments"] * 2
    assert client.views([]) == {}


def test_all_are_waited_for_and_come_in_the_order_given_however_they_end(client, leader, app):
    handles = [client.submit(spec_dict(name=f"e{index}")) for index in range(30)]
    for _ in handles:
        run_next(leader)
    for handle in handles[2:]:
        end(leader, handle.id)
    asked = len(app.paths)

    def end_the_others():
        wait_until(lambda: len(app.paths) > asked + 3, "a few looks")
        end(leader, handles[0].id, State.FAILED, Reason.USER_ERROR)
        wait_until(lambda: len(app.paths) > asked + 6, "a few looks more")
        end(leader, handles[1].id)

    thread = threading.Thread(target=end_the_others)  # after looks at which they had not ended
    thread.start()
    order = [handles[1], handles[0].id, *handles[2:], handles[1]]
    found = client.wait_all(order, timeout=60)
    thread.join()
    assert [one.id for one in found] == [one if isinstance(one, str) else one.id for one in order]
    assert found[1].state is State.FAILED
    assert {one.state for one in found} == {State.FAILED, State.SUCCEEDED}
    assert handles[1].state is State.SUCCEEDED, "what was given shows it too"
    assert all(one.view.spec for one in found)
    assert set(app.paths[asked:]) == {"/v1/experiments"}, "none is asked for by itself"


def test_one_look_at_thirty_is_one_request(client, app):
    handles = [client.submit(spec_dict()) for _ in range(30)]
    asked = len(app.paths)
    with pytest.raises(WaitTimeout, match=r"30 of 30 have not ended after 0\.25 s.*QUEUED.*…"):
        client.wait_all(handles, timeout=0.25)
    assert 1 <= len(app.paths) - asked <= 4


def test_what_does_not_end_in_time_is_named_and_what_has_ended_is_shown(client, leader):
    ended, waiting = (client.submit(spec_dict(tags={"a": "b"})) for _ in range(2))
    run_next(leader)
    end(leader, ended.id)
    with pytest.raises(WaitTimeout, match=f"1 of 2 .*{waiting.id} QUEUED"):
        client.wait_all([waiting, ended], timeout=0.3)
    assert ended.state is State.SUCCEEDED
    assert waiting.view.spec["tags"] == {"a": "b"}


def test_what_is_not_there_is_named_at_once_and_what_is_deleted_meanwhile_at_the_end(client, leader):
    kept, deleted = (client.submit(spec_dict()) for _ in range(2))
    with pytest.raises(MissingExperiments, match="nothere"):
        client.wait_all([kept, "nothere"])
    run_next(leader)
    run_next(leader)
    end(leader, deleted.id)
    client.delete(deleted.id)
    timer = threading.Timer(0.4, end, (leader, kept.id))
    timer.start()
    with pytest.raises(MissingExperiments, match=deleted.id) as error:
        client.wait_all([deleted, kept], timeout=30)
    timer.join()
    assert error.value.ids == [deleted.id]
    assert kept.state is State.SUCCEEDED


def test_nothing_is_waited_for_in_no_time(client):
    assert len(client.wait_all([], timeout=0)) == 0


def test_progress_is_told_for_all(client, leader, capsys):
    handles = [client.submit(spec_dict(name=f"e{index}")) for index in range(2)]
    for handle in handles:
        run_next(leader)
        end(leader, handle.id)
    client.experiments().wait_all(progress=True, timeout=30)
    told = capsys.readouterr().err
    assert "e0" in told
    assert "e1" in told


class Tags(HTMLParser):
    """The elements of a page."""

    def __init__(self, page):
        super().__init__()
        self.seen, self.text = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, _attributes):
        self.seen.add(tag)

    def handle_data(self, data):
        self.text += data


def test_hostile_words_stay_text_in_a_notebook(client):
    view = client.submit(spec_dict(tags={"x": HOSTILE})).view
    fields = {
        "name": HOSTILE,
        "project": f"a{HOSTILE}",
        "owner": f"'\">{HOSTILE}",
        "message": f"{HOSTILE}\u202e",
        "metrics": {HOSTILE: 0.5},
        "summary": {"parameters": HOSTILE},
        "spec": {"model": {"backbone": HOSTILE, "attention": {"type": HOSTILE}}, "train": {"seed": HOSTILE}},
    }
    handle = ExperimentHandle(client, view.model_copy(update=fields))
    for page in (handle._repr_html_(), Experiments(client, [handle] * 3)._repr_html_()):
        assert Tags(page).seen <= {"table", "tr", "th", "td"}
        assert HOSTILE in Tags(page).text
    assert "\u202e" not in handle._repr_html_()


def test_a_notebook_shows_what_an_experiment_has_reached(client, leader):
    first = client.submit(spec_dict(name="a-name", tags={"paper": "cbam"}))
    run_next(leader)
    end(leader, first.id, progress={"metrics": {"test/top1": 0.75}}, summary={"parameters": 1234567})
    shown = Tags(first.refresh()._repr_html_()).text
    assert all(word in shown for word in ("a-name", "SUCCEEDED", "0.75", "1,234,567", "tag paper", "cbam"))
    listed = Tags(client.experiments()._repr_html_()).text
    assert all(word in listed for word in ("a-name", "SUCCEEDED", "0.75", "cifar_resnet20", "digits"))
    many = Experiments(client, [first] * (MOST_ROWS + 5))._repr_html_()
    assert many.count("<tr>") == MOST_ROWS + 1
    assert "and 5 more" in many
