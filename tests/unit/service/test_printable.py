"""What steers a terminal or a log: refused where it comes in, escaped wherever it is shown."""

import json
import logging

import pytest
from sqlalchemy import update

from cbam_core.printable import escaped, escaped_line, unprintable
from cbam_core.spec import ExperimentSpec
from service.api.app import create_app
from service.database.models.experiments import Experiment
from service.log_format import LineFormatter
from tests.support.live_server import serving
from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder
from workers.runtime.rank_log import RankLog

STEERING = [
    *("\x00", "\x07", "\x1b", "\x7f", "\r", "\x85", "\x9b", "\x9d"),
    *("\u2028", "\u2029", "\u061c", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069"),
]
TITLE = "\x1b]0;owned\x07\x9b31m\x85forged\u2028line\u202egpj.exe"


def shows_nothing_that_steers(text):
    return unprintable(text, lines=True) is None


@pytest.mark.parametrize("character", STEERING)
def test_every_such_character_is_found_and_escaped_as_in_json(character):
    text = f"a{character}b\n\tc"
    assert unprintable(text, lines=True) == f"U+{ord(character):04X}"
    assert escaped(text) == f"a\\u{ord(character):04x}b\n\tc"
    assert json.loads(f'"{escaped_line(text)}"') == text


@pytest.mark.parametrize("text", ["Größe 3×3", "日本語", "עברית", "किताब", "👩\u200d🔬", "می\u200cخواهم", "a\u00a0b"])
def test_what_people_write_stays(text):
    assert escaped_line(text) == text
    assert unprintable(text) is None


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"tags": {"lab/a": "x{}y"}}, "/tags/lab~1a"),
        ({"description": "two\nlines{}"}, "/description"),
        ({"data": {"dataset": "cifar10", "root": "/data/{}"}}, "/data/root"),
    ],
)
@pytest.mark.parametrize("character", ["\x1b", "\x85", "\u2028", "\u202e"])
def test_specs_hold_no_such_character(http, settings, fields, pointer, character):
    body = json.loads(json.dumps(spec_dict(**fields)).replace("{}", json.dumps(character)[1:-1]))
    answer = http.post("/v1/experiments", json=body)
    assert answer.status_code == 422, answer.text
    detail = f"it holds U+{ord(character):04X}, which is no character to be shown; leave it out"
    assert answer.json()["errors"] == [{"pointer": pointer, "detail": detail}]
    original = http.post("/v1/experiments", json=spec_dict()).json()
    clone = http.post(f"/v1/experiments/{original['id']}/clone", json={name: body[name] for name in fields})
    assert clone.status_code == 422
    if "data" not in fields:
        changed = http.patch(f"/v1/experiments/{original['id']}", json={name: body[name] for name in fields})
        assert (changed.status_code, changed.json()["errors"][0]["pointer"]) == (422, pointer)


def test_a_description_may_have_lines_and_a_tag_may_not(http):
    assert http.post("/v1/experiments", json=spec_dict(description="# Why\n\n\tbecause")).status_code == 201
    assert http.post("/v1/experiments", json=spec_dict(tags={"a": "b\nc"})).status_code == 422


def test_what_was_stored_before_loads_and_is_shown_escaped(settings, monkeypatch, cbam):
    app = create_app(settings)
    with serving(app) as url:
        monkeypatch.setenv("CBAM_URL", url)
        spec = ExperimentSpec.model_validate(spec_dict(tags={"a": TITLE}, description=TITLE))
        store = app.state.store
        row, _ = store.submit(spec, owner="local", key=None, body_hash="")
        with store.database.writing() as session:
            session.execute(update(Experiment).where(Experiment.id == row.id).values(message=f"DataError: {TITLE}"))
        for command in (("show", row.id), ("show", row.id, "--json"), ("list",), ("list", "--json")):
            code, out, err = cbam(*command)
            assert code == 0
            assert shows_nothing_that_steers(out + err), command
        assert "\\u001b]0;owned" in cbam("show", row.id)[1]
        shown = json.loads(cbam("show", row.id, "--json")[1])
        assert shown["spec"]["tags"] == {"a": TITLE}, "JSON says the same, spelt otherwise"


def test_a_log_is_shown_escaped(settings, monkeypatch, cbam, log_of):
    """Also one that was written before workers escaped."""
    app = create_app(settings)
    with serving(app) as url:
        monkeypatch.setenv("CBAM_URL", url)
        experiment_id = log_of(app, f"cannot read {TITLE}\n\tsecond line\n")
        for options in ((), ("--json",)):
            code, out, _ = cbam("logs", experiment_id, *options)
            assert code == 0
            assert "owned" in out
            assert shows_nothing_that_steers(out), options


@pytest.fixture
def log_of(settings):
    """Leaves a log of rank 0 of a new experiment; gives its id."""

    def leave(app, text):
        row, _ = app.state.store.submit(
            ExperimentSpec.model_validate(spec_dict()), owner="local", key=None, body_hash=""
        )
        with app.state.store.database.writing() as session:
            session.execute(update(Experiment).where(Experiment.id == row.id).values(attempt=1))
        log = ExperimentFolder(settings.storage_root, row.id).attempt(1).log(0)
        log.parent.mkdir(parents=True)
        log.write_text(text, encoding="utf-8")
        return row.id

    return leave


@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.parametrize("character", [*STEERING, "\n", "\t"])
def test_a_log_line_of_the_service_is_one_line_whatever_it_quotes(form, character):
    record = logging.LogRecord("service.x", logging.INFO, __file__, 1, f"GET /a{character}b", (), None)
    record.client = f"x{character}y"
    line = LineFormatter("api", form).format(record)
    assert unprintable(line) is None
    assert len(line.splitlines()) == 1
    if form == "json":
        assert json.loads(line)["message"] == f"GET /a{character}b"


def test_a_workers_log_holds_nothing_that_steers(tmp_path):
    handler = RankLog(tmp_path / "rank.log")
    handler.handle(logging.LogRecord("workers", logging.ERROR, __file__, 1, f"cannot read {TITLE}", (), None))
    assert shows_nothing_that_steers(handler.last_lines(5))
    handler.close()
    assert shows_nothing_that_steers((tmp_path / "rank.log").read_text(encoding="utf-8"))
    assert "\\u001b]0;owned" in (tmp_path / "rank.log").read_text(encoding="utf-8")
