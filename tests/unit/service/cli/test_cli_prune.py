"""`cbam prune` against a running server: it shows, asks, and removes exactly what was shown."""

import io
import json
from datetime import timedelta

import pytest
from sqlalchemy import update

from service.client.client import Client
from service.client.errors import Gone
from service.database.models.experiments import Experiment
from service.dispatcher.store import AttemptEnd
from service.domain.pruning import PruneScope
from service.domain.states import Move, State
from service.domain.values import utc_now
from tests.support.specs import spec


class Terminal(io.StringIO):
    """A person who answers."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def ended(server, store, dispatcher_store):
    """Makes an experiment that was cancelled so many days ago, with 1,500 bytes of checkpoints; its id."""

    def ended(days: float, *, owner: str = "local", tracked: bool = True) -> str:
        row, _ = store.submit(spec(name=f"d{days:g}"), owner=owner)
        dispatcher_store.claim(row, 1)
        for state in (State.CANCELLING, State.CANCELLED):
            dispatcher_store.apply(store.get(row.id), Move(state), AttemptEnd())
        facts = {
            "ended_at": utc_now() - timedelta(days=days),
            "disk_bytes": 2500,
            "checkpoint_bytes": 1500,
            "disk_measured_at": utc_now(),
            "tracking_closed": tracked,
        }
        with store.database.writing() as session:
            session.execute(update(Experiment).where(Experiment.id == row.id).values(**facts))
        return row.id

    return ended


def pruned(store, *ids):
    return [store.get(one).pruned for one in ids]


def test_in_a_pipe_it_shows_what_would_go_and_removes_it_only_with_yes(cbam, ended, store):
    old, older, young = ended(31), ended(40), ended(29)
    code, out, told = cbam("prune", "--older-than", "30d")
    lines = out.splitlines()
    assert (code, [line.split()[0] for line in lines[1:-1]]) == (0, [older, old])
    assert (lines[-1], told) == ("2 experiments, 3.0KB", "nothing is removed; add --yes\n")
    assert pruned(store, old, older, young) == [None, None, None]
    assert cbam("prune", "--older-than", "30d", "--dry-run", "--yes")[0] == 0
    assert pruned(store, old, older, young) == [None, None, None]
    code, out, _ = cbam("prune", "--older-than", "30d", "--yes")
    assert (code, out.splitlines()[-1]) == (0, "pruned 2 experiments: the dispatcher removes 3.0KB")
    assert pruned(store, old, older, young) == ["checkpoints", "checkpoints", None]
    assert cbam("prune", "--older-than", "30d", "--yes")[1] == "there is nothing to prune\n"
    assert cbam("retry", old)[0] == 1
    assert "cannot retry it: its checkpoints were pruned on" in cbam("retry", old)[2]


@pytest.mark.parametrize(("answer", "what"), [("y\n", "all"), ("n\n", None), ("", None)])
def test_a_person_is_asked(cbam, ended, store, monkeypatch, answer, what):
    old = ended(1)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    cbam("prune", "--older-than", "12h", "--all-files")
    assert pruned(store, old) == [what]


def test_json_says_what_went_and_what_was_refused(cbam, ended, store):
    old, untold = ended(31), ended(32, tracked=False)
    code, out, told = cbam("prune", "--older-than", "4w", "--all-files", "--json")
    answer = json.loads(out)
    assert (code, answer["dry_run"], answer["bytes"]) == (1, True, 2500)
    assert [(one["id"], one["ok"]) for one in answer["results"]] == [(untold, False), (old, True)]
    assert "MLflow has not heard all of it" in told
    code, out, _ = cbam("prune", "--older-than", "4w", "--all-files", "--json", "--yes")
    assert (code, json.loads(out)["dry_run"], pruned(store, old, untold)) == (1, False, ["all", None])
    with Client() as client, pytest.raises(Gone, match="have been pruned"):
        client.logs(old)


def test_ones_own_unless_others_are_named(cbam, ended, store):
    mine, bobs = ended(31), ended(31, owner="bob")
    assert cbam("prune", "--older-than", "30d")[1].splitlines()[1].startswith(mine)
    assert cbam("prune", "--older-than", "30d", "--owner", "bob", "--yes")[0] == 0
    assert pruned(store, mine, bobs) == [None, "checkpoints"]
    assert cbam("prune", "--older-than", "30d", "--project", "other", "--all-owners", "--yes")[1].startswith("there is")
    assert cbam("prune", "--older-than", "30d", "--all-owners", "--yes")[0] == 0
    assert pruned(store, mine) == ["checkpoints"]


def test_more_than_one_call_takes_are_shown_and_removed(cbam, ended, store, monkeypatch):
    ids = [ended(31 + index) for index in range(5)]
    monkeypatch.setattr("service.cli.commands.prune.MOST_AT_ONCE", 2)
    with Client() as client:
        first = client.prune(where={"state": ["CANCELLED"]}, what=PruneScope.CHECKPOINTS)
    assert (first.dry_run, len(first.results)) == (True, 5)
    assert cbam("prune", "--older-than", "30d", "--yes")[1].splitlines()[-1].startswith("pruned 5 experiments")
    assert set(pruned(store, *ids)) == {"checkpoints"}


@pytest.mark.parametrize("age", ["30", "0d", "-1d", "1y", "d", "999999w", "1.5d", ""])
def test_an_age_that_is_none_is_refused_before_anything_is_asked(cbam, age):
    code, _, told = cbam("prune", "--older-than", age)
    assert (code, "is no age; write 12h, 30d or 8w" in " ".join(told.replace("│", "").split())) == (2, True)
    assert cbam("prune")[0] == 2
    assert cbam("prune", "--older-than", "1d", "--owner", "a", "--all-owners")[0] == 2
