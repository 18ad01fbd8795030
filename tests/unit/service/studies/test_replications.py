"""The same question with fresh seeds: other seeds, the same specs, a verdict of its own, and both are told."""

import pytest

from service.client.comparing.table import words
from service.comparisons.replications import fresh_seed
from service.comparisons.report import html, markdown
from service.domain.studies import StudyState, seed_of
from service.schemas.comparison_results import ResultView
from service.schemas.comparisons import MOST_SEEDS
from tests.support.studies.comparing import leave_predictions
from tests.support.studies.running import comparison, submitted, until

PATH = "/v1/comparisons"


@pytest.fixture
def ended(dispatcher, cluster, studies):
    """A comparison that has its verdict."""
    cluster.export = leave_predictions
    study = submitted(studies, comparison(seeds=8))
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    return study


def test_it_has_the_same_specs_and_other_seeds(http, studies, dispatcher, ended):
    answer = http.post(f"{PATH}/{ended.id}/replicate")
    assert answer.status_code == 201, answer.text
    view = answer.json()
    assert answer.headers["Location"] == f"{PATH}/{view['id']}"
    assert (view["name"], view["replicates"], view["state"]) == ("does cbam help-replication", ended.id, "ACTIVE")
    again = studies.get(view["id"])
    assert again.specs == ended.specs
    assert again.spec == ended.spec | {"name": again.name, "seed": again.seed}
    until(dispatcher, studies, again.id, StudyState.SUCCEEDED)
    seeds = {study.id: {row.trial.seed for row in studies.trials(study.id)} for study in (ended, again)}
    assert {len(found) for found in seeds.values()} == {8}
    assert seeds[ended.id].isdisjoint(seeds[again.id])


def test_both_are_told(http, studies, dispatcher, ended):
    alone = http.get(f"{PATH}/{ended.id}/result").json()
    assert alone["replications"] == []
    again = http.post(f"{PATH}/{ended.id}/replicate", json={"name": "once more", "seeds": 9}).json()
    until(dispatcher, studies, again["id"], StudyState.SUCCEEDED)
    first, second = (http.get(f"{PATH}/{one}/result").json() for one in (ended.id, again["id"]))
    assert {key: value for key, value in first.items() if key != "replications"} == {
        key: value for key, value in alone.items() if key != "replications"
    }, "a replication changes no number"
    (of_first,), (of_second,) = first["replications"], second["replications"]
    assert (of_first["relation"], of_first["name"], of_first["seeds"]) == ("by", "once more", 9)
    assert (of_second["relation"], of_second["name"], of_second["seeds"]) == ("of", "does cbam help", 8)
    assert of_first["summary"] == second["summary"]
    assert of_second["summary"] == first["summary"]
    shown = ResultView.model_validate(first)
    line = f"Replicated by once more ({again['id']}): {second['summary'][0]}"
    assert line in list(words(shown))
    assert "## With other seeds" in markdown(shown)
    assert "<h2>With other seeds</h2>" in html(shown, "<svg/>")


def test_one_that_was_deleted_is_told_as_that(http, studies, ended):
    again = http.post(f"{PATH}/{ended.id}/replicate").json()
    studies.delete(ended.id, by="ada")
    (told,) = http.get(f"{PATH}/{again['id']}/result").json()["replications"]
    assert (told["id"], told["state"], told["summary"]) == (ended.id, None, [])
    shown = ResultView.model_validate(http.get(f"{PATH}/{again['id']}/result").json())
    assert f"Replicates {ended.id}, which was deleted." in list(words(shown))


def test_names_and_seeds_of_several_differ(http, ended):
    made = [http.post(f"{PATH}/{ended.id}/replicate").json() for _ in range(2)]
    assert [view["name"] for view in made] == ["does cbam help-replication", "does cbam help-replication-2"]
    assert len({view["seed"] for view in made} | {ended.seed}) == 3


def test_the_same_key_gives_the_same_replication(http, ended):
    key = {"Idempotency-Key": "once"}
    one, other = (http.post(f"{PATH}/{ended.id}/replicate", headers=key) for _ in range(2))
    assert one.json()["id"] == other.json()["id"]
    assert http.post(f"{PATH}/{ended.id}/replicate", headers=key, json={"seeds": 9}).status_code == 422


@pytest.mark.parametrize(
    ("body", "pointer"), [({"seeds": 1}, "/seeds"), ({"seed": 3}, "/seed"), ({"name": "<b>"}, "/name")]
)
def test_what_cannot_be_used_is_refused(http, ended, body, pointer):
    answer = http.post(f"{PATH}/{ended.id}/replicate", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_rule_of_precision_is_kept_and_may_be_replaced(http, studies):
    rule = {"pilot": 8, "most": 20, "stop": {"rule": "precision", "half_width": 0.01}}
    study = submitted(studies, comparison(seeds=rule))
    kept, fixed = (http.post(f"{PATH}/{study.id}/replicate", json=body).json() for body in ({}, {"seeds": 12}))
    assert (kept["seeds"], kept["spec"]["seeds"]["most"]) == (8, 20)
    assert (fixed["seeds"], fixed["spec"]["seeds"]) == (12, 12)


def test_fresh_seeds_were_in_no_earlier_block():
    seed = fresh_seed([1, 2, 3])
    used = {seed_of(earlier, block) for earlier in (1, 2, 3) for block in range(MOST_SEEDS)}
    assert used.isdisjoint(seed_of(seed, block) for block in range(MOST_SEEDS))
