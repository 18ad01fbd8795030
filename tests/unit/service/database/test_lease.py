"""Who leads: one at a time, and another when it falls silent."""

import threading

import pytest

from service.database import lease
from service.database.lease import Leadership, current_leader
from service.database.models.operations import Lease
from service.errors import NotLeading
from tests.support.waiting import wait_until


def dispatcher(database, name, seconds=60.0):
    return Leadership(database, holder=name, seconds=seconds)


def may_write(database, leadership):
    try:
        with database.writing() as session:
            leadership.guard(session)
    except NotLeading:
        return False
    return True


def expires_at(database):
    with database.reading() as session:
        return session.get_one(Lease, lease.NAME).expires_at


def test_the_first_leads_and_the_second_waits(database):
    first, second = dispatcher(database, "first"), dispatcher(database, "second")
    assert first.renew()
    assert not second.renew()
    assert first.renew(), "to renew is not to compete"
    assert current_leader(database) == "first"
    assert (may_write(database, first), may_write(database, second)) == (True, False)


def test_a_leader_that_falls_silent_is_followed_and_cannot_write_any_more(database):
    first, second = dispatcher(database, "first", seconds=0.3), dispatcher(database, "second")
    assert first.renew()
    wait_until(second.renew, "the lease to expire")
    assert current_leader(database) == "second"
    assert not may_write(database, first)
    assert not first.renew()


def test_an_expired_lease_that_nobody_took_allows_no_write(database):
    first = dispatcher(database, "first", seconds=0.1)
    assert first.renew()
    wait_until(lambda: current_leader(database) is None, "the lease to expire")
    assert not may_write(database, first)


def test_who_goes_on_writing_keeps_the_lease(database):
    first = dispatcher(database, "first")
    assert first.renew()
    taken = expires_at(database)
    wait_until(lambda: may_write(database, first) and expires_at(database) > taken, "a write to renew it")


def test_who_lets_go_is_followed_at_once(database):
    first, second = dispatcher(database, "first"), dispatcher(database, "second")
    assert first.renew()
    first.release()
    assert second.renew()
    first.release()
    assert current_leader(database) == "second", "only one's own lease can be let go"


def test_who_lets_go_no_longer_leads_even_in_the_same_millisecond(database):
    """SQLite's clock has no finer time: what ended a moment ago and what ends now look alike."""
    for _ in range(20):
        first, second = dispatcher(database, "first"), dispatcher(database, "second")
        assert first.renew()
        first.release()
        assert not may_write(database, first)
        assert second.renew()
        second.release()
        assert current_leader(database) is None


@pytest.mark.parametrize("round_", range(3))
def test_of_many_that_start_at_once_one_leads(database, round_):
    dispatchers = [dispatcher(database, f"number {index}") for index in range(8)]
    led = [False] * len(dispatchers)
    together = threading.Barrier(len(dispatchers))

    def compete(index):
        together.wait()
        led[index] = dispatchers[index].renew()

    threads = [threading.Thread(target=compete, args=(index,)) for index in range(len(dispatchers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(led) == 1
    assert [may_write(database, one) for one in dispatchers] == led


def test_the_health_check_of_a_dispatcher_asks_whether_somebody_leads(database, settings, monkeypatch, capsys):
    monkeypatch.setenv("CBAM_DATABASE_URL", settings.database_url)
    assert lease.main() == 1
    assert dispatcher(database, "first").renew()
    assert lease.main() == 0
    assert capsys.readouterr().out.splitlines() == ["no dispatcher leads", "first"]
