"""What a warm process keeps of torch.compile, from one attempt to the next."""

import shutil

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from cbam_core.spec import TrainSpec
from workers.train import compiler
from workers.train.compiler import forget_other_code
from workers.train.distributed import ProcessGroup
from workers.train.learner import Learner

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """Train a network of this width in this process, on a cache of its own; gives what was compiled for it, and how."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, "_compiled", None)
    torch._dynamo.reset()
    counters.clear()

    def train(width, *, images=4):
        before = {name: counters["inductor"][name] for name in ("fxgraph_cache_hit", "fxgraph_cache_miss")}
        graphs = counters["stats"]["unique_graphs"]
        forget_other_code((width, images))
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(4, width))
        learner = Learner(TrainSpec(compile=True), network, ProcessGroup(0, 1, torch.device("cpu")))
        learner.learn(torch.ones(images, 1, 2, 2), torch.zeros(images, dtype=torch.int64), rate=0.1, step=0)
        hits, misses = (counters["inductor"][name] - count for name, count in before.items())
        return {"graphs": counters["stats"]["unique_graphs"] - graphs, "hits": hits > 0, "misses": misses > 0}

    yield train
    torch._dynamo.reset()


FROM_NOTHING = {"graphs": 1, "hits": False, "misses": True}
FROM_DISK = {"graphs": 1, "hits": True, "misses": False}
FROM_MEMORY = {"graphs": 0, "hits": False, "misses": False}


def test_a_second_attempt_uses_what_the_first_one_compiled(attempt):
    """In the same process all of it; in another one, or after other networks, what is on disk."""
    assert attempt(3) == FROM_NOTHING
    assert attempt(3) == FROM_MEMORY
    assert attempt(5) == FROM_NOTHING
    assert attempt(3) == FROM_DISK
    torch._dynamo.reset()  # as in a new process
    assert attempt(3) == FROM_DISK


def test_any_number_of_networks_is_compiled_each_for_its_own_shape(attempt):
    """Though Dynamo gives up after as many as its limit says, and compiles a second shape for all shapes."""
    with torch._dynamo.config.patch(recompile_limit=2):  # monkeypatch would leave the process without a limit
        for width in (3, 5, 6):
            assert attempt(width)["graphs"] == 1
        assert attempt(6, images=8)["graphs"] == 1
        assert attempt(6, images=4) == FROM_DISK, "it is the code for this shape again"


def test_a_trainer_tells_trainings_apart_by_what_is_compiled(tiny_spec, assign, train, monkeypatch):
    told = []
    monkeypatch.setattr(Learner, "__init__", _without_compiling(Learner.__init__))
    monkeypatch.setattr("workers.train.network.forget_other_code", told.append)
    base = {"epochs": 1, "compile": True}
    others = [{"precision": "bf16"}, {"channels_last": True}, {"accumulate": 2}, {"global_batch_size": 128}]
    others += [{"fused": "off"}, {"deterministic": False}]
    for number, recipe in enumerate([{}, {"seed": 1, "epochs": 2, "optimizer": {"type": "adamw"}}, *others]):
        train(assign(tiny_spec(train=base | recipe), experiment_id=f"e{number}"))
    train(assign(tiny_spec(model={"attention": {"type": "se"}}, train=base), experiment_id="se"))
    train(assign(tiny_spec(data={"image_size": 16}, train=base), experiment_id="larger"))
    first, same, *rest = told
    assert first == same
    assert len({first, *rest}) == 1 + len(rest)


def _without_compiling(init):
    def start(learner, recipe, *rest):
        init(learner, recipe.model_copy(update={"compile": False}), *rest)

    return start
