"""Sweeps from Python and from a terminal: the real app, a dispatcher, a cluster that trains nothing."""

import json

import pytest
import yaml

from cbam_core.errors import SpecError
from service.client.client import Client
from service.client.errors import NotUsable
from service.domain.studies import StudyState
from service.schemas.sweeps import SweepSpec
from tests.support.live_service import live_service
from tests.support.studies.sweeping import report, sweep_dict

quickly = pytest.mark.parametrize("settings", [{"tick_seconds": 0.01}], indirect=True)


@pytest.fixture
def live(settings, monkeypatch):
    with live_service(settings) as live:
        monkeypatch.setenv("CBAM_URL", live.url)
        live.cluster.steps_per_look, live.cluster.metrics = 50, report()
        yield live


@pytest.fixture
def client(live):
    with Client(live.url, tries=1) as client:
        yield client


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_dict(), sort_keys=False))
    return path


@quickly
@pytest.mark.parametrize("form", ["dict", "spec", "path"])
def test_a_sweep_may_come_as_dict_as_spec_or_as_path(client, file, form):
    spec = SweepSpec.model_validate(sweep_dict())
    handle = client.sweep({"dict": sweep_dict(), "spec": spec, "path": file}[form]).wait(timeout=60)
    assert handle.state is StudyState.SUCCEEDED
    result = handle.result
    assert handle.best == result.best == result.trials[0]
    assert len(handle.trials()) == 6
    frame = handle.table()
    assert list(frame["value"]) == sorted(frame["value"], reverse=True)
    assert "train.optimizer.lr" in frame
    assert [view.id for view in client.sweeps()] == [handle.id]
    assert handle.extend(trials=7).wait(timeout=60).view.trials.succeeded == 7
    assert handle.decisions()[-1].to_state == "SUCCEEDED"
    assert repr(client.get_sweep(handle.id)) == f"<sweep {handle.id} 'rate and attention' SUCCEEDED>"


@quickly
def test_all_that_is_wrong_with_a_file_is_told_with_pointers(client, tmp_path):
    path = tmp_path / "wrong.yaml"
    wrong = sweep_dict(search={"train.optimizer.lr": {"log": [1, 0]}}, metrik="val/top1", metric="test/top1")
    path.write_text(yaml.safe_dump(wrong, sort_keys=False))
    with pytest.raises(SpecError) as refusal:
        client.sweep(path)
    lines = str(refusal.value).splitlines()
    assert f"{path}: /search/train.optimizer.lr: [1, 0] is no range: the first number must be below the second" in lines
    assert f"{path}: /metrik: there is no such field (did you mean metric?)" in lines
    assert any(line.startswith(f"{path}: /metric: what is searched for on test") for line in lines)
    with pytest.raises(NotUsable, match="/metrik"):
        client.sweep(wrong)


@quickly
def test_from_a_file_to_the_best(cbam, live, file):
    code, out, err = cbam("sweep", "run", file, "--watch", "--set", "limits.trials=5")
    assert code == 0, err
    assert "5/5 runs" in [line for line in err.splitlines() if "SUCCEEDED" in line][-1]
    assert "partly luck" in err
    code, out, _ = cbam("sweep", "best", "rate and", "--json")
    best = json.loads(out)
    told = cbam("sweep", "best", "rate and")[1]
    assert told.startswith(f"{best['value']:.4f}  trial {best['number']}  {best['experiment_id']}\n")
    assert "--set model.attention.type=" in told
    assert told.index("model.attention.type") < told.index("train.optimizer.lr")
    assert "SUCCEEDED" in cbam("sweep", "show", "rate and")[1]
    assert len(json.loads(cbam("sweep", "show", "rate and", "--json")[1])["trials"]) == 5
    assert len(json.loads(cbam("sweep", "trials", "rate and", "--json")[1])) == 5
    assert "model.attention.type" in cbam("sweep", "trials", "rate and")[1]
    assert "SUCCEEDED" in cbam("sweep", "decisions", "rate and")[1]
    assert len(json.loads(cbam("list", "--study", "rate and", "--json")[1])) == 5
    assert cbam("sweep", "extend", "rate and")[0] == 2
    assert "6 trials, ACTIVE" in cbam("sweep", "extend", "rate and", "--trials", "6")[1]
    assert cbam("sweep", "watch", "rate and")[0] == 0
    assert cbam("sweep", "delete", "rate and attention", "--experiments")[0] == 0
    assert json.loads(cbam("sweep", "list", "--json")[1]) == []
    assert json.loads(cbam("list", "--json")[1]) == []


@quickly
def test_the_best_is_submitted_as_it_is_printed(cbam, live, client, file):
    handle = client.sweep(file).wait(timeout=60)
    best = handle.best
    words = cbam("sweep", "best", handle.id)[1].splitlines()[1].split()
    code, out, err = cbam("submit", "--template", "digits-cbam", *words, "--json")
    assert code == 0, err
    (view,) = json.loads(out)
    spec = view["spec"]
    assert spec["train"]["optimizer"]["lr"] == best.params["train.optimizer.lr"]
    assert spec["model"]["attention"]["type"] == best.params["model.attention.type"]
    assert spec["model"]["attention"].get("reduction") == best.params.get("model.attention.reduction")


def test_the_example_is_a_sweep_that_the_server_takes(cbam, server, tmp_path):
    code, out, _ = cbam("sweep", "init")
    path = tmp_path / "example.yaml"
    path.write_text(out)
    assert code == 0
    assert json.loads(cbam("sweep", "init", "--json")[1])["name"] == "rate-and-attention"
    code, out, err = cbam("sweep", "run", path, "--set", "search.train.optimizer.momentum={choice: [0.8, 0.9]}")
    assert (code, out.split()[1]) == (0, "rate-and-attention")
    assert "24 trials" in err
    view = json.loads(cbam("sweep", "list", "--json")[1])[0]
    code, out, _ = cbam("sweep", "cancel", view["id"])
    assert code == 0
    assert cbam("sweep", "pause", "no-such-sweep")[0] == 1
    assert cbam("templates", "sweeps/rate-and-attention")[0] == 1  # no template of an experiment


def test_a_preview_says_what_would_run(cbam, server, file):
    code, out, err = cbam("sweep", "preview", file)
    assert code == 0, err
    assert "6 trials, at most 6 epochs in all" in out
    assert "trial 0: model.attention.type" in out or "trial 0: model.attention.reduction" in out
