"""A client that a public generator makes of docs/openapi.json, against a running server.

The generator is openapi-python-client. It pins other versions of what we use, so it lives in an environment of its own
(`pipx install openapi-python-client`), or `CBAM_CLIENT_GENERATOR` says where it is; without it this is skipped.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.api.app import create_app
from service.settings import Settings
from tests.support.live_server import serving

FROZEN = Path(__file__).parents[2] / "docs" / "openapi.json"
GENERATOR = os.environ.get("CBAM_CLIENT_GENERATOR") or shutil.which("openapi-python-client")
USE = """
import sys
from cbam_lab_client import AuthenticatedClient
from cbam_lab_client.api.catalogue import get_attentions, get_models, get_templates_one
from cbam_lab_client.api.experiments import (
    get_experiments, get_experiments_one, patch_experiments_one, post_bulk_cancel, post_experiments,
    post_experiments_cancel, post_experiments_preview,
)
from cbam_lab_client.api.history import get_experiments_events, get_experiments_metrics
from cbam_lab_client.models import (
    BulkRequest, ExperimentChanges, ExperimentSpec, FromTemplate, FromTemplateOverrides, Problem, State,
)

client = AuthenticatedClient(base_url=sys.argv[1], token="none")
spec = ExperimentSpec.from_dict({"name": "a", "model": {"backbone": "cifar_resnet20", "attention": {"type": "se"}},
                                 "data": {"dataset": "digits"}})
first = post_experiments.sync(client=client, body=spec, idempotency_key="one")
again = post_experiments.sync(client=client, body=spec, idempotency_key="one")
assert first.id == again.id and first.state == State.QUEUED, first
overrides = FromTemplateOverrides.from_dict({"name": "b", "train.epochs": 2})
second = post_experiments.sync(client=client, body=FromTemplate(template="digits-cbam", overrides=overrides))
assert second.spec.to_dict()["train"]["epochs"] == 2, second
wrong = post_experiments.sync(client=client, body=FromTemplate(template="nothing"))
assert isinstance(wrong, Problem) and wrong.errors[0].pointer == "/template", wrong
assert post_experiments_preview.sync(client=client, body=spec).memory.total > 0
page = get_experiments.sync(client=client, state=[State.QUEUED], attention="se")
assert [item.id for item in page.items] == [first.id], page
changed = patch_experiments_one.sync(first.id, client=client, body=ExperimentChanges(priority=5))
assert changed.priority == 5 and get_experiments_one.sync(first.id, client=client).priority == 5
assert len(get_experiments_events.sync(first.id, client=client).items) == 1
assert get_experiments_metrics.sync(first.id, client=client).items == []
assert post_experiments_cancel.sync(first.id, client=client).desired == "cancel"
results = post_bulk_cancel.sync(client=client, body=BulkRequest(ids=[second.id, "nothere"])).results
assert [result.ok for result in results] == [True, False] and results[1].problem.status == 404
assert len(get_models.sync(client=client).items) > 10 and len(get_attentions.sync(client=client).items) > 10
assert get_templates_one.sync("digits-cbam", client=client).name == "digits-cbam"
"""


@pytest.mark.skipif(
    GENERATOR is None,
    reason="no openapi-python-client: `pipx install openapi-python-client`, or CBAM_CLIENT_GENERATOR=its path; then "
    "`pytest tests/contract/test_generated_client.py`",
)
def test_a_generated_client_works(tmp_path):
    command = [str(GENERATOR), "generate", "--path", str(FROZEN), "--output-path", str(tmp_path / "out")]
    made = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert made.returncode == 0, made.stderr
    assert "will not be generated" not in made.stdout + made.stderr
    assert "Unable to" not in made.stdout + made.stderr
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "out")}
    python = Path(str(GENERATOR)).resolve().parent / "python"  # what the client stands on comes with its generator
    with serving(create_app(Settings(home=tmp_path, database_url=""))) as url:
        used = subprocess.run(
            [str(python) if python.exists() else sys.executable, "-c", USE, url],
            capture_output=True,
            text=True,
            timeout=200,
            env=environment,
            check=False,
        )
    assert used.returncode == 0, used.stderr
