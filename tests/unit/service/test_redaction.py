"""What looks like a secret is not written down."""

import logging

import pytest

from service.auth.tokens import new_secret
from service.log_format import LineFormatter
from service.redaction import redact, without_login
from service.settings import Settings


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_a_token_in_a_log_record_is_taken_out_wherever_it_stands(form):
    secret = new_secret()
    record = logging.makeLogRecord({"msg": "GET /v1/%s", "args": (secret,), "path": f"/x/{secret}?y", "name": "n"})
    line = LineFormatter("api", form).format(record)
    assert secret[5:] not in line
    assert line.count("[secret]") == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://cbam:hunter2@db/cbam failed", "postgresql://cbam:[secret]@db/cbam failed"),
        ("at http://mlflow:5001/#/runs/1", "at http://mlflow:5001/#/runs/1"),
        ("cbam_experiments is a metric, cbam_core a package", "cbam_experiments is a metric, cbam_core a package"),
        ("whsec_QUJDREVGR0hJSktMTU5PUA==", "whsec_[secret]"),
    ],
)
def test_what_is_a_secret_and_what_is_not(text, shown):
    assert redact(text) == shown


def test_the_links_that_users_see_hold_no_login_of_mlflow(tmp_path):
    settings = Settings(home=tmp_path, mlflow_tracking_uri="https://me:hunter2@mlflow.example/x")
    assert settings.mlflow_public_url == without_login(settings.mlflow_tracking_uri) == "https://mlflow.example/x"
    assert Settings(home=tmp_path).mlflow_public_url is None
