"""docs/rest.md: every example is run by a real shell with a real curl, in its order, against a real server."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.api.app import create_app
from service.settings import Settings
from tests.support.live_server import serving

PAGE = Path(__file__).parents[4] / "docs" / "rest.md"
FENCE = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_example_of_the_page_works(tmp_path):
    blocks = FENCE.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 10
    script = "set -euo pipefail\n" + "\n".join(blocks)
    script = script.replace("--max-time 60", "--max-time 2")  # nothing runs here: the stream would not end by itself
    export = f"{tmp_path}/storage/experiments/$ID/export"  # nothing trains here
    files = "curl -fsS $CBAM_URL/v1/experiments/$ID/files\n"
    assert files in script
    script = script.replace(files, f"mkdir -p {export}; printf weights >{export}/model.safetensors\n{files}")
    app = create_app(Settings(home=tmp_path, database_url=""))
    with serving(app) as url:
        script = script.replace("export CBAM_URL=http://127.0.0.1:8000", f"export CBAM_URL={url}")
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, timeout=240, cwd=tmp_path, check=False
        )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr}"
    assert '"parameters":' in done.stdout
    assert "event: move" in done.stdout
    assert '"state":"QUEUED"' in done.stdout
    assert '"kind":"weights"' in done.stdout
    assert (tmp_path / "model.safetensors").read_text() == "weights"
