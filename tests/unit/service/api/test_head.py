"""HEAD answers as GET does, without the body; and a word that no query knows is told with the one that is meant."""

import httpx2
import pytest

from service.api.app import create_app
from tests.support.live_server import serving
from tests.support.specs import spec_dict

SAME = ("content-type", "content-length", "etag", "cache-control")


@pytest.mark.parametrize("path", ["/v1/experiments", "/v1/cluster", "/v1/models", "/healthz", "/metrics", "/docs"])
def test_head_answers_as_get_without_a_body(http, path):
    seen, looked = http.head(path), http.get(path)
    assert (seen.status_code, seen.content) == (200, b"")
    if path != "/metrics":  # which counts the requests
        assert {name: seen.headers.get(name) for name in SAME} == {name: looked.headers.get(name) for name in SAME}


def test_head_of_an_experiment_has_its_etag_and_of_none_is_a_404(http):
    made = http.post("/v1/experiments", json=spec_dict()).json()
    place = f"/v1/experiments/{made['id']}"
    assert http.head(place).headers["etag"] == http.get(place).headers["etag"]
    assert http.head("/v1/experiments/nothing").status_code == 404
    assert http.head(f"{place}/cancel").status_code == 405
    assert http.head(f"{place}/logs/stream").status_code == 405
    assert http.get(place).json()["desired"] == "run"


def test_over_a_real_connection_the_next_request_is_answered_too(settings):
    with serving(create_app(settings)) as url, httpx2.Client() as client:
        for _ in range(3):
            assert client.head(f"{url}/v1/experiments").status_code == 200
            assert client.get(f"{url}/v1/experiments").json()["items"] == []
        text = client.get(f"{url}/metrics").text
    assert 'cbam_http_requests_total{method="HEAD",route="/v1/experiments",status="200"} 3.0' in text


@pytest.mark.parametrize(
    ("query", "pointer", "meant"),
    [
        ("status=QUEUED", "status", "state"),
        ("tags=a", "tags", "tag"),
        ("created_afer=2026", "created_afer", "created_after"),
    ],
)
def test_what_a_query_does_not_know_is_told_with_what_it_does(http, query, pointer, meant):
    problem = http.get(f"/v1/experiments?{query}")
    assert problem.status_code == 422
    assert problem.json()["errors"] == [
        {"pointer": pointer, "detail": f"there is no such field (did you mean {meant}?)"}
    ]


def test_so_is_what_a_body_does_not_know(http):
    made = http.post("/v1/experiments", json=spec_dict()).json()
    problem = http.patch(f"/v1/experiments/{made['id']}", json={"descriptoin": "x"})
    assert "did you mean description?" in problem.json()["errors"][0]["detail"]


def test_a_name_in_the_place_of_an_id_is_told_in_words(http):
    (item,) = http.get("/v1/experiments/r20+cbam").json()["errors"]
    assert item["detail"] == "an id is lower-case letters and digits; a name is looked for with ?q= in the list"
