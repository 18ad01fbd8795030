"""A Ray cluster that is not ours: its nodes have torch and all the rest, but not cbam-lab, which is sent to them."""

import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from service.cluster.base import GangKey, Launch
from service.cluster.ray.cluster import RayCluster
from service.settings import Settings
from tests.support.ray_head import RAY_ENVIRONMENT, nodes_seen, ray_head
from tests.support.specs import spec
from tests.support.waiting import wait_until
from workers.protocol.outcome import read_outcome
from workers.protocol.storage import ExperimentFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def foreign_python(tmp_path: Path) -> str:
    """A Python with every package of this one but ours: what a `.pth` names is not searched for `.pth` files itself."""
    folder = tmp_path / "foreign"
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(folder / "bin" / "python")


def test_our_code_travels_to_a_cluster_that_does_not_have_it(
    foreign_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)  # Ray lets workers import from where the driver stands
    for name, value in RAY_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    lacks = subprocess.run(
        [foreign_python, "-c", "import ray, torch, workers"], capture_output=True, text=True, check=False
    )
    assert "No module named 'workers'" in lacks.stderr, lacks.stderr
    with ray_head(cpus=1, python=foreign_python) as head:
        cluster = RayCluster(Settings(home=tmp_path, ray_address=head.address, ship_code=True))
        cluster.lead(seconds=600)
        wait_until(lambda: nodes_seen(cluster), "a connection to Ray")
        key = GangKey("abroad", 1)
        cluster.start(
            Launch(key=key, token="token", spec=spec(), workers=1, storage=tmp_path / "storage", tracking_uri=None)
        )
        folder = ExperimentFolder(tmp_path / "storage", key.experiment_id).attempt(1)
        outcome = wait_until(lambda: read_outcome(folder), "the result record", seconds=120)
        cluster.release(key)
        wait_until(lambda: key not in cluster.observe().gangs, "the gang to be gone")
        cluster.close()
    assert outcome.outcome == "succeeded"
