"""`cbam compare` as a user types it, over the real app; with a dispatcher where runs are to end."""

import io
import json
import sys

import pytest
import yaml

from service.client.client import Client
from service.schemas.comparisons import ComparisonSpec
from tests.support.live_service import live_service
from tests.support.specs import spec_dict
from tests.support.studies.comparing import comparison_dict, leave_predictions
from tests.support.waiting import wait_until

quickly = pytest.mark.parametrize("settings", [{"tick_seconds": 0.01}], indirect=True)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "comparison.yaml"
    path.write_text(yaml.safe_dump(comparison_dict(), sort_keys=False))
    return path


@pytest.fixture
def live(settings, monkeypatch):
    with live_service(settings) as live:
        monkeypatch.setenv("CBAM_URL", live.url)
        live.cluster.steps_per_look, live.cluster.export = 50, leave_predictions
        yield live


def submitted(cbam, file, *words):
    code, out, err = cbam("compare", "run", file, "--json", *words)
    assert code == 0, err
    return json.loads(out)


def test_the_example_is_a_comparison_that_the_server_takes(cbam, server, tmp_path):
    code, out, _ = cbam("compare", "init")
    path = tmp_path / "example.yaml"
    path.write_text(out)
    assert code == 0
    assert json.loads(cbam("compare", "init", "--json")[1])["name"] == "does-cbam-help"
    code, out, err = cbam("compare", "run", path)
    assert (code, out.split()[1]) == (0, "does-cbam-help")
    assert "26 runs" in err, "24 trainings, and the cost of two variants"
    assert cbam("templates", "comparisons/does-cbam-help")[0] == 1  # no template of an experiment


@quickly
def test_from_a_file_to_the_verdict(cbam, live, file):
    code, out, err = cbam("compare", "run", file, "--watch")
    assert code == 0
    assert "better" in out
    assert "On these 40 images cbam beats plain by 25.0 points" in out
    lines = [line for line in err.splitlines() if "runs" in line]
    assert "SUCCEEDED" in lines[-1]
    assert "16/16 runs" in lines[-1]
    assert "\x1b" not in err

    shown = cbam("compare", "show", "does-cbam-help")[1]
    facts = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert facts["state"][0] == "SUCCEEDED"
    assert facts["seeds"] == ["8/8", "seeds"]
    assert "On these 40 images" in shown
    told = json.loads(cbam("compare", "show", "does", "--json")[1])
    assert told["pairs"][0]["verdict"] == "better"
    rows = cbam("compare", "trials", "does-cbam-help")[1].splitlines()
    assert len(rows) == 17
    assert all(row.endswith(" of 40") for row in rows[1:])
    assert "SUCCEEDED" in cbam("compare", "decisions", "does-cbam-help")[1]


@quickly
def test_a_comparison_that_has_ended_is_watched_at_once(cbam, live, file):
    made = submitted(cbam, file, "--set", "seeds=2", "--watch")
    assert made["state"] == "SUCCEEDED"
    code, out, _ = cbam("compare", "watch", made["id"], "--json")
    (line,) = out.splitlines()
    assert (code, json.loads(line)["state"]) == (0, "SUCCEEDED")


@quickly
def test_reports_and_figures(cbam, live, file, tmp_path):
    made = submitted(cbam, file, "--set", "seeds=2", "--watch")["id"]
    code, out, _ = cbam("compare", "report", made, "-o", tmp_path / "report.html")
    assert (code, out) == (0, f"{tmp_path / 'report.html'}\n")
    assert "<html" in (tmp_path / "report.html").read_text()
    assert cbam("compare", "report", made, "--format", "markdown")[1].startswith("#")
    assert "markdown" in json.loads(cbam("compare", "report", made, "--format", "markdown", "--json")[1])["format"]
    assert json.loads(cbam("compare", "figure", made, "-o", tmp_path / "f.svg", "--json")[1])["file"].endswith("f.svg")
    assert "<svg" in (tmp_path / "f.svg").read_text()
    code, _, err = cbam("compare", "figure", made, "-o", tmp_path / "none" / "f.svg")
    assert code == 1
    assert "No such file" in err


@quickly
def test_what_ends_without_a_result_is_exit_code_1(cbam, live, file):
    live.cluster.steps_per_look = 0
    made = submitted(cbam, file)["id"]
    with Client(live.url) as client:
        client.comparison(made).cancel().wait(timeout=30)
    code, out, _ = cbam("compare", "watch", made, "--json")
    assert (code, json.loads(out.splitlines()[-1])["state"]) == (1, "CANCELLED")


def test_a_preview_says_runs_costs_and_power(cbam, server, file):
    code, out, _ = cbam("compare", "preview", file, "--set", "seeds=10")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines()}
    assert rows["plain"][1] != rows["cbam"][1]  # parameters
    assert "20 runs" in out
    assert "with power 0.8" in out
    assert "show the margin" in out
    assert json.loads(cbam("compare", "preview", file, "--json")[1])["runs"] == 16
    code, out, _ = cbam("compare", "preview", file, "--set", "seeds={pilot: 8, most: 20, stop: {half_width: 0.01}}")
    assert "at most 40 runs, 16 of them before" in out
    assert "probe" not in out
    code, out, _ = cbam("compare", "preview", file, "--set", "probe=true")
    assert "then a probe of what a variant costs: 32 s each, and the start" in out


@quickly
def test_the_cost_is_measured_behind_the_trainings_and_shown(cbam, live, file):
    code, out, _ = cbam("compare", "run", file, "--watch", "--set", "probe=true", "--set", "seeds=2")
    assert code == 0
    assert "× 0.93 [" in out
    assert "so not at equal cost" in out
    assert "the comparison asked for no probe" not in out
    code, out, _ = cbam("compare", "trials", "does-cbam-help")
    assert out.splitlines()[-1].split()[1:3] == ["cbam", "cost"]
    (*_, last) = json.loads(cbam("compare", "trials", "does-cbam-help", "--json")[1])
    assert (last["kind"], last["block"]) == ("probe", -1)


def test_one_comparison_is_meant_by_its_id_its_name_or_how_they_begin(cbam, server, file):
    ids = [submitted(cbam, file, "--set", f"name={name}")["id"] for name in ("first", "second", "twice", "twice")]

    def meant(given):
        code, _, err = cbam("compare", "trials", given)
        return err if code else "found"

    assert meant(ids[0]) == meant("first") == meant("sec") == meant(ids[1][:11]) == "found"
    assert "2 comparisons may be meant by 'twice'" in meant("twice")
    assert ids[3] in meant("tw")
    assert "there is no comparison 'third'; see `cbam compare list`" in meant("third")
    assert "there is no comparison ''" in meant("")
    assert "no comparison is named 'fir'" in cbam("compare", "delete", "fir")[2]  # a deletion cannot be taken back


@quickly
def test_list_and_its_experiments(cbam, live, file):
    live.cluster.steps_per_look = 0
    first, second = (submitted(cbam, file, "--set", f"name={name}")["id"] for name in ("first", "second"))
    assert [view["id"] for view in json.loads(cbam("compare", "list", "--json")[1])] == [second, first]
    assert [line.split()[1] for line in cbam("compare", "list", "-n", 1)[1].splitlines()[1:]] == ["second"]
    assert json.loads(cbam("compare", "list", "--state", "PAUSED", "--json")[1]) == []
    spec = file.with_name("spec.yaml")
    spec.write_text(yaml.safe_dump(spec_dict()))
    assert cbam("submit", spec)[0] == 0
    with Client(live.url) as client:
        wait_until(lambda: len(client.comparison(first).trials()) == 16, "the experiments")
    own = json.loads(cbam("list", "--study", "first", "-n", 100, "--json")[1])
    assert [view["study_id"] for view in own] == [first] * 16
    assert len(json.loads(cbam("list", "-n", 100, "--json")[1])) > 16


@quickly
def test_changes(cbam, live, file):
    live.cluster.steps_per_look = 0
    made = submitted(cbam, file)["id"]
    assert "10 seeds" in cbam("compare", "add-seeds", made, 2)[1]
    assert "pause asked for" in cbam("compare", "pause", made)[1]
    code, out, err = cbam("compare", "cancel", made, "nothing", "--json")
    assert code == 1
    assert [view["id"] for view in json.loads(out)] == [made]
    assert err.startswith("nothing: ")
    with Client(live.url) as client:
        client.comparison(made).wait(timeout=30)
    assert json.loads(cbam("compare", "delete", made, "--experiments", "--json")[1]) == {"deleted": [made]}
    assert json.loads(cbam("list", "--json")[1]) == []


@quickly
def test_seeds_that_are_added_after_results_were_seen_come_with_a_word_about_it(cbam, live, file):
    made = submitted(cbam, file, "--set", "seeds=2", "--watch")["id"]
    code, out, err = cbam("compare", "add-seeds", made, 1)
    assert code == 0
    assert "3 seeds, ACTIVE" in out
    assert "holds at every look" in err


@quickly
def test_a_replication_is_told_with_what_it_repeats(cbam, live, file):
    made = submitted(cbam, file, "--set", "seeds=2", "--watch")
    code, out, err = cbam("compare", "replicate", made["id"], "--seeds", 3)
    assert code == 0
    again, name = out.split()
    assert name == f"{made['name']}-replication"
    assert err == f"6 runs; see `cbam compare watch {again}`\n"
    assert f"Replicates {made['name']} ({made['id']}): " in cbam("compare", "show", again)[1]
    named = json.loads(cbam("compare", "replicate", made["id"], "--name", "other", "--json")[1])
    assert (named["name"], named["replicates"]) == ("other", made["id"])


def set_in(cbam, file, *words):
    """The spec that is submitted of a file with these --set."""
    options = [option for word in words for option in ("--set", word)]
    return submitted(cbam, file, *options)["spec"]


def test_fields_are_set_where_they_are_meant(cbam, server, file, tmp_path):
    spec = set_in(cbam, file, "base.train.epochs=7", "seeds=12", "variants.cbam.model.attention=se", "control=cbam")
    assert spec["base"]["train"]["epochs"] == 7
    assert (spec["seeds"], spec["control"]) == (12, "cbam")
    assert spec["variants"]["cbam"] == {"model.attention": "se"}
    assert [*set_in(cbam, file, "variants.se.model.attention=se", "variants.cbam=")["variants"]] == ["plain", "se"]

    dotted = tmp_path / "dotted.yaml"
    fields = comparison_dict(base={"template": "digits-cbam"}, variants={"r.1": {"model.attention": "none"}, "r": {}})
    dotted.write_text(yaml.safe_dump(fields, sort_keys=False))
    spec = set_in(cbam, dotted, "base.train.epochs=7", "base.train.epochs=8", "variants.r.1.model.attention=se")
    assert spec["base"] == {"template": "digits-cbam", "overrides": {"train.epochs": 8}}
    assert spec["variants"] == {"r.1": {"model.attention": "se"}, "r": {}}
    assert set_in(cbam, dotted, "base.template=digits-se")["base"]["template"] == "digits-se"


def test_a_comparison_may_come_by_standard_input(cbam, server, file, monkeypatch):
    with file.open() as text:
        monkeypatch.setattr(sys, "stdin", text)
        assert submitted(cbam, "-", "--set", "name=piped")["name"] == "piped"
    monkeypatch.setattr(sys, "stdin", io.StringIO("a: 1\na: 2\n"))
    code, _, err = cbam("compare", "run", "-")
    assert (code, err) == (2, "cbam: -: line 2: the key 'a' stands twice; the first time in line 1\n")


def test_all_that_is_wrong_is_said_at_once_with_pointers_before_anything_is_sent(cbam, file, monkeypatch):
    monkeypatch.setenv("CBAM_URL", "http://127.0.0.1:9")
    fields = comparison_dict(base=spec_dict(colour="red"), metric="test/top9", control="x")
    file.write_text(yaml.safe_dump(fields, sort_keys=False))
    code, out, err = cbam("compare", "run", file)
    assert (code, out) == (2, "")
    assert f"{file}: /base/colour: there is no such field" in err
    assert f"{file}: /metric: " in err
    assert err.count("/metric") == 1
    code, _, err = cbam("compare", "preview", file, "--set", "seeds.pilot.x=1")
    assert code == 2
    assert "--set seeds.pilot.x" in err


def test_what_the_server_alone_knows_is_told_with_pointers_too(cbam, server, file):
    code, _, err = cbam("compare", "run", file, "--set", "variants.cbam.train.epochs=3")
    assert code == 1
    assert "/variants/cbam: a comparison holds `train.epochs` equal" in err


def test_numbers_of_yaml_1_2_and_names_that_look_like_numbers(cbam, server, file):
    file.write_text(file.read_text().replace("seeds: 8", "seeds: 010").replace("name: does-cbam-help", "name: 007"))
    spec = submitted(cbam, file)["spec"]
    assert ComparisonSpec.model_validate(spec).seeds == 10
    assert spec["name"] == "007"
