"""Who did what, when, from where."""

import sqlite3
from datetime import timedelta

import pytest
from sqlalchemy import event, insert, select

from service.auth.audit import AuditLog, Entry
from service.database.engine import Database
from service.database.models.auth import AuditEvent
from service.domain.values import utc_now
from service.schemas.auth import TokenRequest
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until


@pytest.fixture
def bearer(http):
    def make(name: str, role: str = "user") -> dict[str, str]:
        wanted = TokenRequest(name=name, role=role)
        return {"Authorization": f"Bearer {http.app.state.tokens.create(wanted, by='test')[1]}"}

    return make


def told(http, admin, count: int) -> list[dict]:
    def enough() -> list[dict] | None:
        items = http.get("/v1/audit", headers=admin).json()["items"]
        return items if len(items) >= count else None

    return wait_until(enough, f"{count} audit events")


def test_changes_and_refusals_are_written_down_and_looking_is_not(http, bearer):
    ada, eve, root = bearer("ada"), bearer("eve", "viewer"), bearer("root", "admin")
    made = http.post("/v1/experiments", json=spec_dict(), headers=ada | {"X-Request-ID": "monday-1"})
    path = made.headers["Location"]
    http.get(path, headers=ada)
    http.post(f"{path}/cancel", headers=eve)
    http.get("/v1/tokens", headers=eve)
    http.get("/v1/tokens", headers={"Authorization": "Bearer wrong"})
    http.post("/v1/experiments", json={}, headers=ada)
    events = told(http, root, 5)[::-1]
    assert [(e["actor"], e["action"], e["status"]) for e in events] == [
        ("ada", "POST /v1/experiments", 201),
        ("eve", "POST /v1/experiments/{experiment_id}/cancel", 403),
        ("eve", "GET /v1/tokens", 403),
        (None, "GET (no route)", 401),
        ("ada", "POST /v1/experiments", 422),
    ]
    assert [e["target"] for e in events] == [path, f"{path}/cancel", "/v1/tokens", "/v1/tokens", "/v1/experiments"]
    assert (events[0]["request_id"], events[0]["address"]) == ("monday-1", "testclient")
    assert events[0]["token_id"] == http.get("/v1/whoami", headers=ada).json()["token_id"]


def test_admins_page_through_them_and_nobody_else(http, bearer):
    ada, root = bearer("ada"), bearer("root", "admin")
    for _ in range(5):
        http.post("/v1/experiments", json={}, headers=ada)
    told(http, root, 5)
    first = http.get("/v1/audit?limit=3&actor=ada", headers=root).json()
    rest = http.get(f"/v1/audit?limit=3&actor=ada&cursor={first['next_cursor']}", headers=root).json()
    seqs = [item["seq"] for item in first["items"] + rest["items"]]
    assert (len(seqs), seqs, rest["next_cursor"]) == (5, sorted(seqs, reverse=True), None)
    assert http.get("/v1/audit?actor=bob", headers=root).json()["items"] == []
    assert http.get("/v1/audit", headers=ada).status_code == 403
    for bad in ("cursor=-1", "cursor=x", "cursor=9999999999999999999", "limit=0", "limit=201"):
        assert http.get(f"/v1/audit?{bad}", headers=root).status_code == 422


def test_the_last_use_of_a_token_is_known_to_the_minute(http, bearer):
    root, _ = bearer("root", "admin"), bearer("never")

    def last_uses() -> dict[str, str | None]:
        return {t["name"]: t["last_used_at"] for t in http.get("/v1/tokens", headers=root).json()["items"]}

    used = wait_until(lambda: (uses := last_uses())["root"] and uses, "the last use")
    assert used["never"] is None
    assert last_uses() == used, "not written at every use"


def entry(target: str) -> Entry:
    return Entry(
        at=utc_now(),
        actor="ada",
        token_id=None,
        action="POST /x",
        target=target,
        status=200,
        address="192.0.2.1",
        request_id=None,
    )


def test_what_waits_is_written_when_the_server_closes_and_old_ones_are_deleted(database):
    with database.writing() as session:
        old = vars(entry("old")) | {"at": utc_now() - timedelta(days=31)}
        session.execute(insert(AuditEvent), [old])
    audit = AuditLog(database, keep_days=30)
    audit.start()
    for index in range(100):
        audit.note(entry(str(index)))
    audit.close()
    with database.reading() as session:
        targets = list(session.scalars(select(AuditEvent.target).order_by(AuditEvent.seq)))
    assert targets == [str(index) for index in range(100)]


def test_they_wait_for_a_database_that_is_away(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("service.auth.audit.RETRY_SECONDS", 0.01)
    database = Database(f"sqlite:///{tmp_path / 'other.db'}")
    database.migrate()
    database.close()
    event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 20"))
    other = sqlite3.connect(tmp_path / "other.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    audit = AuditLog(database, keep_days=30)
    audit.start()
    audit.note(entry("first"))
    audit.note(entry("second"))
    wait_until(lambda: caplog.text.count("audit events wait for the database") > 1, "two tries")
    other.close()
    wait_until(lambda: audit.page(actor=None, before=None, limit=9), "the events")
    audit.close()
    assert [row.target for row in audit.page(actor="ada", before=None, limit=9)] == ["second", "first"]
    database.close()
