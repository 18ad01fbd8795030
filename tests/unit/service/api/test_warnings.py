"""What looks odd about a recipe is told with the answer to its submission, too."""

import time

import pytest

from service.cluster.base import Node
from service.dispatcher.cluster_status import ClusterStatusWriter
from service.preview.profiler import NetworkProfiler
from tests.support.specs import spec_dict

ON_GPU = spec_dict(resources={"gpus_per_worker": 1})
SLOW = spec_dict(train={"epochs": 1, "global_batch_size": 64, "precision": "fp16"})


@pytest.fixture
def sees(leader):
    """Have the dispatcher see a node with so many GPUs, or no cluster at all."""
    writer = ClusterStatusWriter(leader, clock=time.monotonic)

    def see(gpus: float | None) -> None:
        writer.note(None if gpus is None else [Node("n", cpus=4, gpus=gpus, free_cpus=4, free_gpus=gpus)], "away")

    return see


def told(answer):
    assert answer.status_code in (200, 201), answer.text
    return {(found["pointer"], found["code"]) for found in answer.json()["warnings"]}


def test_a_submission_and_a_clone_are_answered_with_what_looks_odd(http):
    made = http.post("/v1/experiments", json=SLOW)
    assert ("/train/precision", "half_on_cpu") in told(made)
    place = f"/v1/experiments/{made.json()['id']}"
    assert told(http.post(f"{place}/clone", json={})) == told(made)
    assert told(http.post(f"{place}/clone", json={"train.precision": "fp32"})) < told(made)
    assert told(http.get(place)) == set()
    assert http.get("/v1/experiments").json()["items"][0]["warnings"] == []


def test_what_a_preview_has_measured_is_told_from_then_on(http):
    odd = spec_dict(model={"backbone": "cifar_resnet20", "attention": {"type": "cbam", "reduction": 32}})
    place = ("/model/attention/reduction", "narrow_bottleneck")
    assert place not in told(http.post("/v1/experiments", json=odd))
    assert place in told(http.post("/v1/experiments/preview", json=odd))
    assert place in told(http.post("/v1/experiments", json=odd))


@pytest.mark.parametrize(("gpus", "is_told"), [(0.0, True), (1.0, False), (None, False)])
def test_gpus_that_no_node_has_are_told_at_once(http, sees, gpus, is_told):
    place = ("/resources/gpus_per_worker", "more_gpus_than_there_are")
    assert place not in told(http.post("/v1/experiments", json=ON_GPU))  # nobody has looked yet
    sees(gpus)
    assert (place in told(http.post("/v1/experiments", json=ON_GPU))) == is_told
    assert (place in told(http.post("/v1/experiments/preview", json=ON_GPU))) == is_told


def test_a_submission_starts_no_process_to_measure(http, monkeypatch):
    async def never(*_args: object) -> None:
        raise AssertionError("a submission waits for nothing")

    monkeypatch.setattr(NetworkProfiler, "_ask", never)
    assert http.post("/v1/experiments", json=ON_GPU).status_code == 201
