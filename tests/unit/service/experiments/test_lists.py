"""Lists: every filter, every order, and pages that lose nothing and show nothing twice."""

import base64
import json
import random
from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import event

from service.database.listing import cursor_of
from service.dispatcher.store import AttemptEnd
from service.domain.filters import Cursor, Filter, Sort
from service.domain.states import Move, Reason, State
from service.experiments.store import ExperimentStore
from tests.support.specs import spec, spec_dict


def names(http, query):
    answer = http.get(f"/v1/experiments?{query}")
    assert answer.status_code == 200, answer.text
    return [item["name"] for item in answer.json()["items"]]


@pytest.fixture
def five(http):
    """Five experiments: n0 … n4, the newest last."""
    attentions = ["cbam", "se", "none", "cbam", "eca"]
    for index, attention in enumerate(attentions):
        fields = spec_dict(
            name=f"n{index}",
            project="odd" if index % 2 else "even",
            tags={"paper": attention, "index": str(index)} | ({"last": ""} if index == 4 else {}),
            priority=index % 3,
            model={"backbone": "cifar_resnet20", "attention": {"type": attention}},
        )
        assert http.post("/v1/experiments", json=fields).status_code == 201


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "n4 n3 n2 n1 n0"),
        ("tag=paper:cbam", "n3 n0"),
        ("tag=paper%3Dcbam", "n3 n0"),
        ("tag=last", "n4"),
        ("tag=paper", "n4 n3 n2 n1 n0"),
        ("tag=paper:cbam&tag=index:3", "n3"),
        ("tag=paper:nothing", ""),
        ("attention=se", "n1"),
        ("attention=cbam&project=even", "n0"),
        ("backbone=cifar_resnet20&attention=cbam&tag=index:0", "n0"),
        ("dataset=digits&q=N2", "n2"),
        ("owner=local&q=n4", "n4"),
        ("owner=nobody", ""),
        ("state=QUEUED&state=FAILED&project=odd", "n3 n1"),
        ("sort=created_at", "n0 n1 n2 n3 n4"),
        ("sort=name", "n0 n1 n2 n3 n4"),
        ("sort=-name&project=even", "n4 n2 n0"),
        ("sort=-priority", "n2 n4 n1 n3 n0"),
        ("sort=priority&tag=paper:cbam", "n0 n3"),
        ("sort=ended_at", ""),
    ],
)
def test_a_list_is_narrowed_and_ordered(http, five, query, expected):
    assert names(http, query) == expected.split()


def test_a_list_of_ids_shows_those_that_are_there(http, five):
    ids = {item["name"]: item["id"] for item in http.get("/v1/experiments").json()["items"]}
    assert names(http, f"id={ids['n0']}&id={ids['n3']}&id=nothere&id={ids['n0']}") == ["n3", "n0"]
    assert names(http, f"id={ids['n0']}&id={ids['n1']}&project=odd") == ["n1"]
    assert names(http, "id=nothere") == []
    for query in ("id=../x", "id=", "&".join(["id=a"] * 201)):
        answer = http.get(f"/v1/experiments?{query}")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "id"


@pytest.mark.parametrize("sort", list(Sort))
@pytest.mark.parametrize("narrowing", [{}, {"tag": "mine:yes"}])
def test_pages_of_every_order_show_everything_once(http, store, leader, sort, narrowing):
    store.submit(spec(name="stranger"))
    ours = [spec(name=f"n{index % 3}", tags={"mine": "yes"}, priority=index % 2) for index in range(7)]
    wanted = {store.submit(one)[0].id for one in ours}
    for row in leader.queue():
        leader.claim(row, 1)
    for row, _ in leader.live():
        leader.apply(row, Move(State.FAILED, Reason.USER_ERROR), AttemptEnd())
    query, seen, pages = {"sort": str(sort), "limit": "2"} | narrowing, [], 0
    while True:
        page = http.get("/v1/experiments", params=query).json()
        seen += page["items"]
        pages += 1
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
        if pages == 1:
            store.submit(spec(name="late", tags={"late": "yes"}))  # what comes meanwhile disturbs nothing
    ours = [item for item in seen if item["id"] in wanted]
    assert len(ours) == len({item["id"] for item in ours}) == 7
    values = [item[sort.column] for item in ours]
    assert values == sorted(values, reverse=sort.falls)


def test_a_list_between_two_moments(http, store):
    first, second = (store.submit(spec(name=name))[0] for name in ("a", "b"))
    between = second.created_at.isoformat()
    assert names(http, f"created_after={between.replace('+', '%2B')}") == ["b"]
    assert names(http, f"created_before={between}") == ["a"]  # the plus sign has become a space
    local = second.created_at.astimezone(tz=None).replace(tzinfo=None).isoformat()
    assert names(http, f"created_before={local}") == ["a"]
    assert names(http, f"created_after={(first.created_at + timedelta(days=1)).date()}") == []


@pytest.mark.parametrize(
    "query",
    [
        "sort=colour",
        "colour=red",
        "tag=",
        "tag=:x",
        "tag=a%20b",
        "state=LOST",
        "created_after=yesterday",
        "created_after=0001-01-01T00:00:00%2B23:59",
        "created_before=9999-12-31T23:59:59-23:59",
        "limit=0",
        "limit=201",
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(http, query):
    answer = http.get(f"/v1/experiments?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] in query


def _cursor(*values):
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


NOW = datetime(2026, 1, 1, tzinfo=UTC).isoformat()


@pytest.mark.parametrize(
    "cursor",
    [
        "abc",
        "W10=",
        "%00",
        _cursor("-created_at", NOW, NOW),
        _cursor("-created_at", 5, NOW, "a"),
        _cursor("-created_at", "2026-01-01", NOW, "a"),
        _cursor("-created_at", "0001-01-01T00:00:00+23:59", NOW, "a"),
        _cursor("-created_at", NOW, NOW, 7),
        _cursor("name", NOW, NOW, "a"),
        _cursor("-created_at", NOW, NOW, "\ud800"),
        _cursor("-created_at", NOW, NOW, "a\0b"),
        _cursor("-created_at", NOW, NOW, "x" * 500),
    ],
)
def test_a_cursor_of_nobody_is_refused(http, cursor):
    answer = http.get("/v1/experiments", params={"cursor": cursor})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == "cursor"


@pytest.mark.parametrize("value", [True, "1", 2**40, None, 1.5])
def test_a_cursor_by_priority_holds_a_number_that_a_database_can_hold(http, value):
    answer = http.get("/v1/experiments", params={"sort": "priority", "cursor": _cursor("priority", value, NOW, "a")})
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("value", ["\ud800", "a\0b"])
def test_a_cursor_by_name_holds_a_text_that_a_database_can_hold(http, value):
    answer = http.get("/v1/experiments", params={"sort": "name", "cursor": _cursor("name", value, NOW, "a")})
    assert answer.status_code == 422, answer.text


FRAGMENTS = [b"\\ud800", b"\\u0000", b"\0", b"\xff", b'"', b"9" * 20, b"9" * 4400, b"-", b"e308", b"null", b"[", b"{}"]


def _mutated(text: bytes, chance: random.Random) -> bytes:
    """One or two places of the text are something else."""
    for _ in range(chance.randint(1, 2)):
        at, cut = chance.randrange(len(text) + 1), chance.choice([0, 0, 1, 4])
        new = chance.choice([b"", chance.choice(FRAGMENTS), chance.choice(FRAGMENTS), chance.randbytes(1)])
        text = text[:at] + new + text[at + cut :]
    return text


@pytest.mark.parametrize("sort", [Sort.NEWEST, Sort.NAME, Sort.PRIORITY])
def test_no_cursor_that_was_tampered_with_breaks_anything(http, store, sort):
    rows = [store.submit(spec(name=f"n{index}"))[0] for index in range(3)]
    text, chance = base64.urlsafe_b64decode(cursor_of(rows[1], sort).to_cursor()), random.Random(0)
    for _ in range(200):
        mutated = _mutated(text, chance)
        cursor = base64.urlsafe_b64encode(mutated).decode()
        answer = http.get("/v1/experiments", params={"sort": str(sort), "cursor": cursor})
        assert answer.status_code in (200, 422), mutated


@pytest.mark.parametrize("place", ["experiments/{}/attempts", "experiments/{}/events", "audit"])
@pytest.mark.parametrize("cursor", [2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**400])
def test_a_cursor_that_is_a_number_fits_its_column_or_is_refused(http, store, place, cursor):
    row = store.submit(spec())[0]
    answer = http.get(f"/v1/{place.format(row.id)}", params={"cursor": cursor})
    assert answer.status_code == 422 or answer.json()["items"] == []


def test_a_place_comes_back_from_its_cursor(store):
    row = store.submit(spec())[0]
    for sort in (Sort.NEWEST, Sort.NAME, Sort.PRIORITY_DOWN):
        place = cursor_of(row, sort)
        assert Cursor.from_cursor(place.to_cursor(), sort) == place


def test_experiments_of_an_older_release_are_found_by_their_tags(database):
    """The migration labels what is there."""
    lists = import_module("service.database.migrations.versions.0003_lists")
    store = ExperimentStore(database)
    row = store.submit(spec(tags={"paper": "cbam"}))[0]
    with database.writing() as session:
        connection = session.connection()
        connection.exec_driver_sql("DELETE FROM labels")
        with Operations.context(MigrationContext.configure(connection)):
            lists._label_all()
    for where in (Filter(tags=[("paper", "cbam")]), Filter(facets={"backbone": "cifar_resnet20"})):
        assert [found.id for found in store.page(where)[0]] == [row.id]


def test_a_list_without_specs_shows_all_else_and_never_reads_them(http, store):
    for index in range(3):
        store.submit(spec(name=f"n{index}"))
    whole = http.get("/v1/experiments").json()["items"]
    assert whole[0]["spec"]["name"] == "n2"
    statements: list[str] = []
    engine = http.app.state.store.database.engine
    event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: statements.append(statement))
    page = http.get("/v1/experiments", params={"spec": "false", "limit": 2}).json()
    assert page["items"] == [item | {"spec": {}} for item in whole[:2]]
    assert "experiments.tags" in "".join(statements)
    assert "experiments.spec" not in "".join(statements)
    (last,) = http.get("/v1/experiments", params={"spec": "false", "cursor": page["next_cursor"]}).json()["items"]
    assert (last["name"], last["spec"]) == ("n0", {})
