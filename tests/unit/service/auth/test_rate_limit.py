"""How often a token may ask, and how often a stranger may fail."""

import pytest

from service.auth.rate_limit import MOST_KEYS, TokenBuckets, network_of
from service.schemas.auth import TokenRequest
from tests.support.waiting import wait_until


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time():
    return Clock()


def test_a_bucket_gives_its_burst_and_then_its_rate(time):
    buckets = TokenBuckets(per_second=2.0, burst=3, clock=time)
    assert [buckets.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(0.5)]
    assert buckets.take("b") == 0.0, "each key has its own"
    time.now += 0.5
    assert buckets.take("a") == 0.0
    assert buckets.take("a") > 0.0
    time.now += 3600.0
    assert [buckets.take("a") == 0.0 for _ in range(4)] == [True, True, True, False], "it holds no more than its burst"


def test_what_is_refused_is_not_paid_for(time):
    buckets = TokenBuckets(per_second=1.0, burst=1, clock=time)
    assert buckets.take("a") == 0.0
    assert [buckets.take("a") for _ in range(3)] == [pytest.approx(1.0)] * 3
    assert buckets.wait_seconds("a") == pytest.approx(1.0)


def test_a_million_addresses_take_no_memory_for_ever(time):
    buckets = TokenBuckets(per_second=1.0, burst=1, clock=time)
    for index in range(MOST_KEYS + 100):
        buckets.take(str(index))
    assert buckets.take(str(MOST_KEYS + 99)) > 0.0
    assert buckets.take("0") == 0.0, "the one that was longest away is forgotten"


def test_an_ipv6_machine_has_one_bucket_for_all_its_addresses():
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("testclient") == "testclient"


def bearer(http, name: str, role: str = "user") -> dict[str, str]:
    wanted = TokenRequest(name=name, role=role)
    return {"Authorization": f"Bearer {http.app.state.tokens.create(wanted, by='test')[1]}"}


@pytest.mark.parametrize("settings", [{"rate_per_second": 0.001, "rate_burst": 3}], indirect=True)
def test_a_token_that_asks_too_often_is_told_when_to_come_back_and_others_are_served(http):
    ada, bob = bearer(http, "ada"), bearer(http, "bob")
    assert [http.get("/v1/whoami", headers=ada).status_code for _ in range(3)] == [200, 200, 200]
    late = http.get("/v1/whoami", headers=ada)
    assert (late.status_code, late.headers["content-type"]) == (429, "application/problem+json")
    assert 900 < int(late.headers["Retry-After"]) <= 1000
    assert http.get("/v1/whoami", headers=bob).status_code == 200


@pytest.mark.parametrize("settings", [{"failed_logins_per_minute": 5}], indirect=True)
def test_whoever_guesses_is_slowed_down_and_those_who_are_known_are_not(http):
    ada, late = bearer(http, "ada"), bearer(http, "late")
    assert http.get("/v1/whoami", headers=ada).status_code == 200
    guesses = [
        http.get("/v1/whoami", headers={"Authorization": f"Bearer cbam_{index}"}).status_code for index in range(8)
    ]
    assert guesses == [401] * 5 + [429] * 3
    assert int(http.get("/v1/whoami").headers["Retry-After"]) in range(1, 13)
    assert http.get("/v1/whoami", headers=late).status_code == 429, "it is not even looked up, so nothing is learnt"
    assert http.get("/v1/whoami", headers=ada).status_code == 200
    assert http.get("/readyz").status_code == 200


@pytest.mark.parametrize("settings", [{"failed_logins_per_minute": 5}], indirect=True)
def test_readiness_does_not_tell_good_tokens_from_bad_ones_without_end(http):
    """It answers everybody, and who has a good token gets the details."""
    ada, late = bearer(http, "ada"), bearer(http, "late")

    def tells(headers: dict[str, str]) -> bool:
        return bool(http.get("/readyz", headers=headers).json()["components"]["ray"]["detail"])

    assert tells(ada)
    assert not any(tells({}) for _ in range(20)), "what watches the server has no token, and is no guess"
    assert tells(late)
    http.app.state.tokens.revoke(http.get("/v1/whoami", headers=late).json()["token_id"])
    unseen = bearer(http, "unseen")
    assert not any(tells({"Authorization": f"Bearer cbam_{index}"}) for index in range(5))
    assert not tells(unseen)
    assert http.get("/v1/whoami").status_code == 429
    assert tells(ada)


@pytest.mark.parametrize("settings", [{"failed_logins_per_minute": 5}], indirect=True)
def test_guesses_do_not_fill_the_audit_events(http):
    admin = bearer(http, "root", "admin")
    assert http.get("/v1/whoami", headers=admin).status_code == 200
    for _ in range(20):
        http.get("/v1/whoami")

    def told() -> list[int]:
        return [event["status"] for event in http.get("/v1/audit", headers=admin).json()["items"]]

    wait_until(lambda: len(told()) >= 5, "audit events")
    assert set(told()) == {401}
    assert len(told()) < 10, "five, and what time has let in since"
