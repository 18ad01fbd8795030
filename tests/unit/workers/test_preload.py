"""What a training needs is imported without collecting garbage, and then kept out of the collector's way."""

import subprocess
import sys

import pytest

LOADED = """
import gc, sys
from workers.preload import load_ahead, load_training
{before}
assert "torch" not in sys.modules
collected = []
gc.callbacks.append(lambda phase, about: collected.append(phase))
{load}()
assert gc.isenabled() is {enabled}
assert gc.get_freeze_count() > 100_000, gc.get_freeze_count()
assert "workers.attempt" in sys.modules and "torch._dynamo" in sys.modules
assert ("mlflow" in sys.modules) is {has_mlflow}
print(len(collected))
"""


def run_alone(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("enabled", [True, False])
def test_a_training_is_loaded_without_a_single_collection(enabled: bool):
    before = "" if enabled else "gc.disable()"
    program = LOADED.format(load="load_training", before=before, enabled=enabled, has_mlflow=False)
    assert run_alone(program) == "0"


def test_a_worker_on_standby_loads_mlflow_too_and_collects_once():
    program = LOADED.format(load="load_ahead", before="", enabled=True, has_mlflow=True)
    assert run_alone(program) == "2", "a collection begins and ends"


def test_an_import_that_fails_leaves_the_collector_on():
    program = """
import gc, sys
sys.modules["torch"] = None  # which an import takes for a module that is not there
from workers.preload import load_training
try:
    load_training()
except ImportError:
    print(gc.isenabled(), gc.get_freeze_count())
"""
    assert run_alone(program) == "True 0"
