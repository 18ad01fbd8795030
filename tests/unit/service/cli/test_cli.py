"""The `cbam` command as a user types it: answers to stdout, the rest to stderr, exit code 0 only on success."""

import io
import json
import subprocess
import sys
from importlib.metadata import version

import pytest
import yaml
from typer.main import get_command

from service.cli.main import app
from service.cli.specs import read_overrides
from service.client.client import Client
from tests.support.live_service import live_service
from tests.support.ports import free_port
from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec_dict()))
    return path


def test_submit_list_show_cancel(cbam, server, spec_file):
    code, out, _ = cbam("submit", spec_file, spec_file, "--set", "train.epochs=3", "--json")
    first, second = json.loads(out)
    assert code == 0
    assert first["id"] != second["id"]
    assert second["spec"]["train"]["epochs"] == 3

    code, out, _ = cbam("list", "--json", "-n", 1)
    assert [view["id"] for view in json.loads(out)] == [second["id"]]
    assert first["id"] in cbam("list")[1]

    shown = {line.split()[0]: line.split()[1:] for line in cbam("show", first["id"])[1].splitlines() if line.strip()}
    assert shown["state"] == ["QUEUED"]
    asked = {"backbone": "cifar_resnet20", "attention": "cbam", "dataset": "digits", "seed": "0"}
    assert {name: shown[name] for name in asked} == {name: [value] for name, value in asked.items()}
    assert json.loads(cbam("show", first["id"], "--json")[1])["id"] == first["id"]

    code, out, err = cbam("cancel", first["id"], "no-such-id")
    assert code == 1  # one of the two
    assert first["id"] in out
    assert err.startswith("no-such-id: ")
    assert cbam("logs", first["id"])[:2] == (0, "")


def test_one_experiment_is_meant_by_its_id_its_name_or_how_they_begin(cbam, server, spec_file):
    named = ("r20+cbam", "r20+cbam b", "twice", "twice")
    ids = [json.loads(cbam("submit", spec_file, "--set", f"name={name}", "--json")[1])[0]["id"] for name in named]

    def meant(given):
        code, out, err = cbam("show", given, "--json")
        return json.loads(out)["id"] if code == 0 else err

    assert meant(ids[0]) == meant("r20+cbam") == ids[0]
    assert meant(ids[1][:11]) == meant("r20+cbam b") == meant("r20+cbam ") == ids[1]
    assert "2 experiments may be meant by 'twice'" in meant("twice")
    assert all(one in meant("twi") for one in ids[2:])
    assert "there is no experiment 'r21'" in meant("r21")
    assert cbam("logs", "r20+cbam") == (0, "", "")
    assert cbam("cancel", "r20+cbam b")[0] == 0


def test_a_submission_says_what_looks_odd(cbam, server, spec_file):
    odd = ("--set", "name=odd", "--set", "train.precision=fp16")
    code, out, err = cbam("submit", spec_file, spec_file, *odd)
    assert code == 0
    assert len(out.splitlines()) == 2
    assert [line for line in err.splitlines() if "/train/precision" in line] == [
        "odd: /train/precision: fp16 is slow on CPUs; take bf16 or fp32"
    ]


def test_a_spec_may_come_by_standard_input(cbam, server, spec_file, monkeypatch):
    with spec_file.open() as text:
        monkeypatch.setattr(sys, "stdin", text)
        code, out, _ = cbam("submit", "-", "--set", "name=piped", "--json")
    assert code == 0
    assert json.loads(out)[0]["name"] == "piped"
    monkeypatch.setattr(sys, "stdin", io.StringIO("a: 1\na: 2\n"))
    code, _, err = cbam("submit", "-")
    assert (code, err) == (2, "cbam: -: line 2: the key 'a' stands twice; the first time in line 1\n")


def test_in_a_container_the_address_is_that_of_the_machine(cbam, server, spec_file, monkeypatch):
    made = json.loads(cbam("submit", spec_file, "--json")[1])[0]["id"]
    assert f"{server}/v1/experiments/{made}" in cbam("show", made)[1]
    monkeypatch.setenv("CBAM_PUBLIC_URL", "http://127.0.0.1:8300/")
    assert f"http://127.0.0.1:8300/v1/experiments/{made}" in cbam("show", made)[1]


@pytest.mark.parametrize("name", ["missing", "a:b"])
def test_a_folder_that_cannot_be_opened_is_refused_before_anything_starts(cbam, tmp_path, monkeypatch, name):
    monkeypatch.setenv("CBAM_HOME", str(tmp_path / "home"))
    (tmp_path / "a:b").mkdir()
    code, _, err = cbam("up", "--data-root", tmp_path / name)
    assert code == 2
    assert "--data-root" in err
    assert not (tmp_path / "home").exists()


def test_the_version(cbam):
    assert cbam("--version") == (0, f"cbam-lab {version('cbam-lab')}\n", "")


def test_preview_counts_what_the_paper_counts(cbam, server, spec_file):
    code, out, _ = cbam("preview", spec_file, "--json")
    (preview,) = json.loads(out)
    assert code == 0
    assert len(preview["sites"]) == 9  # CIFAR ResNet-20 has nine blocks


def test_everything_wrong_with_all_files_is_said_at_once_with_pointers(cbam, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump(spec_dict(colour="red", train={"epochs": "three"})))
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    code, out, err = cbam("submit", bad, broken, tmp_path / "none.yaml")
    assert (code, out) == (2, "")
    assert "bad.yaml: /train/epochs: " in err
    assert "bad.yaml: /colour: " in err
    assert "broken.yaml: not valid YAML" in err
    assert "none.yaml" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [("no-such-verb",), ("submit",), ("list", "--state", "HAPPY")])
def test_wrong_usage_is_exit_code_2(cbam, words):
    assert cbam(*words)[0] == 2


def test_no_server_is_one_clear_message(cbam, monkeypatch):
    monkeypatch.setenv("CBAM_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("service.client.transport.FIRST_PAUSE_SECONDS", 0.01)
    code, out, err = cbam("list")
    assert (code, out) == (1, "")
    assert "cbam up" in err
    assert "Traceback" not in err


def test_an_impossible_setting_is_named(cbam, monkeypatch, tmp_path):
    monkeypatch.setenv("CBAM_HOME", str(tmp_path))
    monkeypatch.setenv("CBAM_PORT", "0")
    code, _, err = cbam("up")
    assert code == 1
    assert "CBAM_PORT" in err
    assert list(tmp_path.iterdir()) == []  # nothing was started


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("tags.seed=007", {"tags.seed": "007"}),
        ("tags={seed: 0}", {"tags": {"seed": "0"}}),
        ("tags.seed=", {"tags.seed": None}),
        ("name=010", {"name": "010"}),
        ("train.epochs=3", {"train.epochs": 3}),
        ("train.optimizer.lr=1e-3", {"train.optimizer.lr": 0.001}),
        ("model.stages=[1, 2]", {"model.stages": [1, 2]}),
        ("data.root=a=b", {"data.root": "a=b"}),
        ("train.ema=", {"train.ema": None}),
        ("train.deterministic=true", {"train.deterministic": True}),
        ("name=007x", {"name": "007x"}),
    ],
)
def test_set_takes_a_dotted_field_and_a_yaml_value(word, expected):
    assert read_overrides([word]) == expected


def test_the_options_of_one_kind_of_attention_do_not_outlive_a_change_of_the_kind(cbam, server, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec_dict()))
    words = ("--set", "model.attention.kernel_size=3", "--set", "model.attention.type=eca")
    code, out, _ = cbam("submit", path, *words, "--json")
    assert code == 0
    assert json.loads(out)[0]["spec"]["model"]["attention"]["type"] == "eca"


@pytest.mark.parametrize("override", ["epochs", "=3", "train..x=1", "name.x=1", "x=["])
def test_set_that_cannot_be_understood_is_refused(cbam, spec_file, override):
    assert cbam("submit", spec_file, "--set", override)[0] == 2


def test_the_help_loads_nothing_heavy():
    heavy = ("torch", "ray", "mlflow", "fastapi", "sqlalchemy", "pydantic", "httpx2", "rich")
    assert loaded("service.cli.main", heavy) == "[]"


def test_a_client_of_a_server_needs_neither_a_database_nor_a_server_nor_torch():
    heavy = ("torch", "ray", "mlflow", "fastapi", "sqlalchemy", "alembic", "cbam_core.spec")
    assert loaded("service.client", heavy) == "[]"


def loaded(module, heavy):
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("--set", "train.epcohs=3"), "/train/epcohs: there is no such field (did you mean epochs?)"),
        (("--set", "epochs=3"), "/epochs: there is no such field (did you mean train.epochs?)"),
        (("--set", "model.attention.redction=8"), "did you mean reduction?"),
        (("--set", "model.attention.type=cbma"), "did you mean cbam?"),
        (("--set", "model.backbone=resnet81"), "did you mean resnet18"),
    ],
)
def test_what_may_be_meant_is_said(cbam, spec_file, words, meant):
    code, _, err = cbam("submit", spec_file, *words)
    assert code == 2
    assert meant in err


def test_a_verb_that_may_be_meant_is_said(cbam):
    code, _, err = cbam("submti")
    assert code == 2
    assert "submit" in err


def test_the_first_characters_of_an_id_are_enough_where_they_are_clear(cbam, server, spec_file):
    made = json.loads(cbam("submit", spec_file, spec_file, "--json")[1])
    first = made[0]["id"]
    assert json.loads(cbam("show", first[:8], "--json")[1])["id"] == first
    code, _, err = cbam("show", "")
    assert code == 1
    assert "2 experiments" in err
    assert "cbam list" in cbam("show", "no-such")[2]


def test_an_id_is_no_other_experiments_name(cbam, server, spec_file):
    mine = json.loads(cbam("submit", spec_file, "--json")[1])[0]["id"]
    theirs = json.loads(cbam("submit", spec_file, "--set", f"name={mine}", "--json")[1])[0]
    assert theirs["name"] == mine
    assert json.loads(cbam("show", mine, "--json")[1])["id"] == mine


def test_what_is_deleted_is_named_whole(cbam, server, spec_file):
    made = json.loads(cbam("submit", spec_file, "--set", "name=se-final", "--json")[1])[0]["id"]
    assert cbam("cancel", "se-fin")[0] == 0
    code, _, err = cbam("delete", "se-fin")
    assert code == 1
    assert "no experiment is named 'se-fin'" in err
    assert cbam("show", made)[0] == 0


def test_a_table_in_a_pipe_is_one_plain_line_for_each_row(cbam, server, spec_file):
    cbam("submit", spec_file, spec_file)
    lines = cbam("list")[1].splitlines()
    assert lines[0].split()[:4] == ["id", "name", "project", "state"]
    assert [line.split()[1:4] for line in lines[1:]] == [["small", "tests", "QUEUED"]] * 2


def test_nothing_to_submit_is_wrong_usage(cbam):
    code, _, err = cbam("submit")
    assert code == 2
    assert "--template" in err


def test_a_refused_token_is_one_clear_message(cbam, server, settings, spec_file, monkeypatch):
    made = json.loads(cbam("token", "create", "ada", "--role", "viewer", "--json")[1])
    code, _, err = cbam("list")
    assert code == 1
    assert "token" in err
    monkeypatch.setenv("CBAM_TOKEN", made["secret"])
    assert cbam("list")[0] == 0
    code, _, err = cbam("submit", spec_file)
    assert code == 1
    assert made["secret"] not in err


def commands(group, *words):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *words, name)
        else:
            yield " ".join((*words, name)), command


def test_every_verb_answers_in_json():
    for name, command in commands(get_command(app)):
        assert any("--json" in parameter.opts for parameter in command.params), name


def test_edit_changes_what_is_named_and_nothing_else(cbam, server, spec_file):
    made = json.loads(cbam("submit", spec_file, "--set", "tags={a: x, b: y}", "--json")[1])[0]
    words = ("--priority", 7, "--tag", "b=z=1", "--tag", "c=", "--untag", "a", "--description", "why")
    code, out, _ = cbam("edit", made["id"][:8], *words, "--json")
    (changed,) = json.loads(out)
    assert code == 0
    assert (changed["priority"], changed["tags"], changed["description"]) == (7, {"b": "z=1", "c": ""}, "why")

    (changed,) = json.loads(cbam("edit", made["id"], "--description", "", "--json")[1])
    assert (changed["priority"], changed["tags"], changed["description"]) == (7, {"b": "z=1", "c": ""}, "")
    assert "priority -1  b=z=1 c=" in cbam("edit", made["id"], "--priority", -1)[1]


@pytest.mark.parametrize(("changes", "code", "tags"), [(3, 0, {"theirs": "3", "ours": "1"}), (99, 1, {"theirs": "10"})])
def test_edit_reads_again_the_tags_that_somebody_else_gave_meanwhile(
    cbam, server, spec_file, monkeypatch, changes, code, tags
):
    made = json.loads(cbam("submit", spec_file, "--json")[1])[0]
    read = Client.view
    reads = iter(range(1, changes + 1))

    def read_late(client, experiment_id):
        view = read(client, experiment_id)
        if number := next(reads, None):
            client.update(experiment_id, tags={"theirs": str(number)})
        return view

    monkeypatch.setattr(Client, "view", read_late)
    given, _, err = cbam("edit", made["id"], "--tag", "ours=1")
    assert given == code
    assert ("changed" in err) == (code == 1)
    monkeypatch.undo()
    monkeypatch.setenv("CBAM_URL", server)
    assert json.loads(cbam("show", made["id"], "--json")[1])["tags"] == tags


@pytest.mark.parametrize("words", [(), ("--tag", "novalue"), ("--tag", "=x"), ("--priority", "high")])
def test_edit_that_says_nothing_is_wrong_usage(cbam, words):
    assert cbam("edit", "some-id", *words)[0] == 2


def test_watch_and_logs_and_delete_in_json(cbam, settings, spec_file, monkeypatch):
    with live_service(settings) as live:
        monkeypatch.setenv("CBAM_URL", live.url)
        first = json.loads(cbam("submit", spec_file, "--json")[1])[0]["id"]
        second = json.loads(cbam("submit", spec_file, "--set", "train.epochs=500", "--json")[1])[0]["id"]
        code, out, _ = cbam("watch", first, "--json")
        lines = [json.loads(line) for line in out.splitlines()]
        assert code == 0
        assert {view["id"] for view in lines} == {first}
        assert [view["state"] for view in lines].count("SUCCEEDED") == 1
        assert lines[-1]["state"] == "SUCCEEDED"

        log = ExperimentFolder(settings.storage_root, first).attempt(1).log(0)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text('one\n\n"three", größer\n')
        for words in ((), ("--follow",)):
            lines = [json.loads(line) for line in cbam("logs", first, "--json", *words)[1].splitlines()]
            assert [line["line"] for line in lines] == ["one", "", '"three", größer']
            assert {(line["experiment_id"], line["rank"]) for line in lines} == {(first, 0)}

        code, out, err = cbam("delete", first, second, "--json")
        assert code == 1  # the second has not ended
        assert json.loads(out) == {"deleted": [first]}
        assert err.startswith(f"{second}: ")


def test_down_in_json_where_nothing_runs(cbam, monkeypatch, tmp_path):
    monkeypatch.setenv("CBAM_HOME", str(tmp_path))
    code, out, _ = cbam("down", "--json")
    assert (code, json.loads(out)) == (0, {"stopped": []})


def test_train_in_json_says_how_it_ended_and_where_it_lies(cbam, spec_file, tmp_path):
    code, out, _ = cbam("train", spec_file, "--storage", tmp_path / "runs", "--id", "mine", "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["outcome"], told["reason"]) == ("succeeded", None)
    assert told["folder"] == str(tmp_path / "runs" / "experiments" / "mine")
    assert 0 <= told["metrics"]["val/top1"] <= 1
    assert told["summary"]["parameters"] > 0
    assert "token" not in told
