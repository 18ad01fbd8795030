"""Whoever has no token, and speaks a HTTP of their own."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from service.domain.roles import Role
from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder

TRAVERSALS = [
    *("/static-offline-docs/../../../../etc/passwd", "/static-offline-docs/..%2f..%2f..%2f..%2fetc%2fpasswd"),
    *("/static-offline-docs/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/static-offline-docs//etc/passwd"),
    *("/static-offline-docs/..%5c..%5cetc%5cpasswd", "/static-offline-docs/%00/etc/passwd"),
    *("/v1/experiments/..%2f..%2fetc%2fpasswd", "/v1/experiments/../../etc/passwd", "/v1/experiments/%2e%2e/logs"),
    *("/v1/experiments/....//....//etc/passwd/logs", "/v1/experiments/%00/logs", "/v1/experiments/%c0%ae%c0%ae/logs"),
    *("/v1/experiments/x/files/../../../etc/passwd", "/v1/experiments/x/files/..%2f..%2f..%2f..%2fetc%2fpasswd"),
    *(
        "/v1/experiments/x/files//etc/passwd",
        "/v1/experiments/x/files/%2fetc%2fpasswd",
        "/v1/downloads/../tokens?key=x",
    ),
    *(
        "/v1/experiments/x/files/%00",
        "/v1/downloads/..%2f..%2fetc%2fpasswd?key=x",
        "/v1/downloads/../../v1/tokens?key=x",
    ),
    *("//etc/passwd", "/%2fetc/passwd", "/docs/../v1/tokens", "/docs/..%2fv1/tokens", "/healthz/../v1/tokens"),
    *("/healthz%00/v1/tokens", "/healthz;/v1/tokens", "/static-offline-docs/../v1/tokens", "/./v1/tokens"),
]


def request(line: str, *headers: str, host: str = "127.0.0.1", body: bytes = b"") -> bytes:
    head = "\r\n".join([line, f"Host: {host}", "Connection: close", *headers])
    return head.encode("latin-1") + b"\r\n\r\n" + body


def status_of(answer: bytes) -> int:
    """Of the first answer; 0 where the server only hung up."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


@pytest.mark.parametrize("with_token", [False, True])
@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out_of_the_api(target, path, with_token):
    headers = [f"Authorization: Bearer {target.token('eve', Role.VIEWER)}"] if with_token else []
    answer = target.raw(request(f"GET {path} HTTP/1.1", *headers))
    assert status_of(answer) in (400, 401, 403, 404, 405, 422), answer[:300]
    assert b"root:" not in answer


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "Bearer",
            "Bearer null",
            "Bearer undefined",
            "Bearer cbam_",
            "bearer  ",
            "Basic YWRtaW46YWRtaW4=",
            "Token x",
        ),
        *(
            "Bearer " + "A" * 6000,
            "Bearer ' OR 1=1 --",
            'Bearer "',
            "Bearer \x7f",
            "Bearer \xff\xfe",
            "Bearer a, Bearer b",
        ),
        *(
            "Bearer ../../admin_token",
            "Bearer %00",
            "Bearer " + base64.b64encode(json.dumps({"alg": "none"}).encode()).decode(),
        ),
    ],
)
def test_no_word_but_a_token_opens(target, value):
    answer = target.raw(request("GET /v1/tokens HTTP/1.1", f"Authorization: {value}"))
    assert status_of(answer) in (400, 401), answer[:300]


def test_a_link_opens_its_file_once_and_nothing_else(target):
    """Its secret is in the query of a request; the log, which is searched at the end, must not have it."""
    with target.client("ada") as ada:
        made = ada.post("/v1/experiments", json=spec_dict()).json()["id"]
        path = ExperimentFolder(target.home / "storage", made).spec
        path.parent.mkdir(parents=True)
        path.write_bytes(b"name: a")
        url = ada.post(f"/v1/experiments/{made}/files/spec.yaml/link").json()["url"]
    key = url.split("key=")[1]
    target.secrets.append(key)
    for elsewhere in (f"/v1/experiments/{made}/files/spec.yaml?key={key}", f"/v1/tokens?key={key}"):
        assert status_of(target.raw(request(f"GET {elsewhere} HTTP/1.1"))) == 401
        assert status_of(target.raw(request(f"GET {elsewhere} HTTP/1.1", f"Authorization: Bearer {key}"))) == 401
    for name in (f"../experiments/{made}/files/spec.yaml", f"spec.yaml/../../../v1/experiments/{made}/files/spec.yaml"):
        answer = target.raw(request(f"GET /v1/downloads/{name}?key={key} HTTP/1.1"))
        assert status_of(answer) in (401, 404), answer[:300]
    answers = [target.raw(request(f"GET {url} HTTP/1.1")) for _ in range(2)]
    assert [status_of(answer) for answer in answers] == [200, 404]
    assert answers[0].endswith(b"\r\n\r\nname: a")


def test_a_good_token_does_not_lend_itself(target):
    good = f"Authorization: Bearer {target.admin}"
    for headers in (
        (good.replace("Bearer ", "Basic "), ""),
        (f"X-{good}", ""),
        (f"Cookie: token={target.admin}", ""),
        (good.swapcase().replace("aUTHORIZATION", "Authorization"), ""),
    ):
        assert status_of(target.raw(request("GET /v1/tokens HTTP/1.1", *filter(None, headers)))) == 401
    assert status_of(target.raw(request(f"GET /v1/tokens?token={target.admin} HTTP/1.1"))) == 401
    assert status_of(target.raw(request(f"GET /v1/tokens?access_token={target.admin} HTTP/1.1"))) == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "[::1", "a" * 5000]
)
def test_a_name_that_is_not_this_servers_is_refused(target, host):
    answer = target.raw(request("GET /v1/experiments HTTP/1.1", f"Authorization: Bearer {target.admin}", host=host))
    assert status_of(answer) == 400, answer[:300]
    assert b"items" not in answer


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /v1/experiments\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,  # TLS where there is none
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 5000,
        b"GET " + b"/a" * 50_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(20_000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
        b"GET /\r\nX: y HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST /v1/experiments HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/experiments HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /v1/experiments HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"POST /v1/experiments HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        b"POST /v1/experiments HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
        b"0\r\n\r\nGET /v1/tokens HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET http://169.254.169.254/latest HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET /v1/tokens HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    ],
    ids=range(20),
)
def test_what_is_no_proper_request_gets_nothing(target, data):
    answer = target.raw(data, seconds=5.0)
    assert 0 <= status_of(answer) < 500, answer[:300]
    assert not 200 <= status_of(answer) < 300, answer[:300]
    assert b"items" not in answer


def test_headers_cannot_be_smuggled_into_an_answer(target):
    with target.client("mallory") as mallory:
        for path in ("/v1/experiments/x%0d%0aSet-Cookie:%20a=b", "/v1/experiments?cursor=%0d%0aSet-Cookie:%20a=b"):
            answer = mallory.get(path)
            assert answer.status_code in (404, 422)
            assert "set-cookie" not in answer.headers
    answer = target.raw(request("GET /healthz HTTP/1.1", 'X-Request-ID: a\tb"; DROP TABLE <script>'))
    assert b"script" not in answer


def test_a_foreign_page_cannot_have_a_browser_submit(target):
    """What a browser sends across origins without asking first: forms and plain text, never JSON."""
    with target.client("ada") as ada:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
            answer = ada.post("/v1/experiments", content=b"{}", headers={"Content-Type": kind})
            assert answer.status_code == 415
        asked = ada.options(
            "/v1/experiments", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        )
        assert "access-control-allow-origin" not in asked.headers


def test_many_who_guess_at_once_do_not_shut_out_the_owner(target):
    """How they are slowed down: tests/unit/service/auth/test_rate_limit.py; here they are let try."""

    def guess(index: int) -> int:
        return httpx2.get(f"{target.url}/v1/tokens", headers={"Authorization": f"Bearer cbam_{index:043}"}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(guess, range(200))) == {401}
    owner = httpx2.get(f"{target.url}/v1/whoami", headers={"Authorization": f"Bearer {target.admin}"})
    assert owner.status_code == 200
