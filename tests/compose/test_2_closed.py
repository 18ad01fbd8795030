"""What nobody may do who has no token, and what no container may do at all."""

import stat

import httpx2
import pytest

from tests.compose.containers import ComposeCluster, docker

OPEN = {"/healthz", "/readyz"}
LINK = "/v1/downloads/name"  # its key is the secret, and no token is asked for
REFUSED = (401, 429)  # who asks so often without a token is not even told that any more
OURS = ("api", "dispatcher", "mlflow", "ray-head", "ray-worker")


def test_a_wrong_token_is_no_better(cluster: ComposeCluster):
    answer = httpx2.get(f"{cluster.url}/v1/experiments", headers={"Authorization": "Bearer cbam_admin"})
    assert answer.status_code == 401


def test_no_request_without_a_token_gets_further_than_health(cluster: ComposeCluster):
    with httpx2.Client(base_url=cluster.url) as anybody:
        calls = [
            (method.upper(), path.replace("{", "").replace("}", ""))
            for path, methods in anybody.get("/openapi.json").json()["paths"].items()
            for method in methods
        ]
        answers = {call: anybody.request(*call).status_code for call in calls}
        assert len(answers) > 10
        answered = {path: status for (_, path), status in answers.items() if status not in REFUSED}
        assert answered.keys() - {LINK} <= OPEN
        assert answered[LINK] == 422, "there is no key"
        assert anybody.get(LINK, params={"key": "a" * 43}).status_code in (404, 429), "it is none of ours"
        assert anybody.get("/healthz").status_code == 200
        assert all(part["detail"] == "" for part in anybody.get("/readyz").json()["components"].values())


def test_only_the_api_and_mlflow_are_published_and_on_loopback(cluster: ComposeCluster):
    published = {}
    for service in ("db", *OURS):
        ports = cluster.inspect(cluster.containers(service)[0])["NetworkSettings"]["Ports"] or {}
        if addresses := {binding["HostIp"] for bindings in ports.values() for binding in bindings or ()}:
            published[service] = addresses
    assert published == {"api": {"127.0.0.1"}, "mlflow": {"127.0.0.1"}}


def test_the_secrets_are_new_and_for_the_owners_eyes(cluster: ComposeCluster):
    assert stat.S_IMODE(cluster.env_file.stat().st_mode) == 0o600
    lines = dict(line.split("=", 1) for line in cluster.env_file.read_text().splitlines() if "=" in line)
    names = ("POSTGRES_PASSWORD", "CBAM_DATABASE_PASSWORD", "MLFLOW_DATABASE_PASSWORD", "RAY_AUTH_TOKEN")
    secrets = {lines[name] for name in names}
    assert len(secrets) == len(names)
    assert all(len(secret) >= 32 for secret in secrets)
    mode = cluster.execute("api", "stat", "--format=%a", "/var/lib/cbam/admin_token").strip()
    assert mode == "600"


@pytest.mark.parametrize("password", ["", "postgres", "cbam"])
def test_the_database_refuses_a_guess(cluster: ComposeCluster, password: str):
    command = f"PGPASSWORD='{password}' psql --host=db --username=cbam --no-password --command='SELECT 1' cbam 2>&1"
    assert "SELECT 1" not in (answer := cluster.execute("db", "bash", "-c", command, check=False))
    assert "password" in answer


def test_our_user_cannot_read_mlflows_database(cluster: ComposeCluster):
    command = "psql --host=127.0.0.1 --username=cbam --no-password --command='SELECT 1' mlflow 2>&1"
    password = cluster.execute("db", "printenv", "CBAM_DATABASE_PASSWORD").strip()
    answer = cluster.execute("db", "bash", "-c", f"PGPASSWORD={password} {command}", check=False)
    assert "permission denied" in answer


def test_ray_refuses_who_has_another_token(cluster: ComposeCluster):
    script = "import ray; ray.init(address='ray-head:6379', log_to_driver=False); print('IN')"
    container = cluster.containers("ray-worker")[0]
    answers = [
        docker("exec", *environment, container, "timeout", "60", "python", "-c", script, check=False)
        for environment in ([], ["--env=RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef"])
    ]
    assert ["IN" in answer for answer in answers] == [True, False]


@pytest.mark.parametrize("service", OURS)
def test_a_container_has_no_privileges(cluster: ComposeCluster, service: str):
    container = cluster.containers(service)[0]
    assert docker("exec", container, "id", "--user").strip() == "1000"
    status = dict(line.split(":\t", 1) for line in docker("exec", container, "cat", "/proc/self/status").splitlines())
    assert int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_the_data_are_read_only(cluster: ComposeCluster):
    assert "Read-only" in cluster.execute("ray-worker", "bash", "-c", "touch /data/x 2>&1", check=False)


def test_mlflow_refuses_other_hosts(cluster: ComposeCluster):
    answer = httpx2.get(f"{cluster.mlflow_url}/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example"})
    assert answer.status_code == 403
