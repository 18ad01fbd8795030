"""Experiments of before val and test were apart: what they show, how they run, what a copy of them is."""

import pytest
from sqlalchemy import update

from cbam_core.errors import SpecError
from cbam_core.semantics import CURRENT, known
from service.database.models.experiments import Experiment
from tests.support.specs import spec_dict


def made_before(http, number: int = 1) -> dict:
    """An experiment that is there, as an older version would have left it."""
    view = http.post("/v1/experiments", json=spec_dict()).json()
    with http.app.state.store.database.writing() as session:
        session.execute(update(Experiment).where(Experiment.id == view["id"]).values(semantics=number))
    return http.get(f"/v1/experiments/{view['id']}").json()


def test_what_is_new_has_the_current_semantics(http):
    assert http.post("/v1/experiments", json=spec_dict()).json()["semantics"] == CURRENT == 2


def test_a_copy_of_an_older_experiment_is_new_and_says_that_it_is_not_comparable(http):
    old = made_before(http)
    assert old["semantics"] == 1
    copy = http.post(f"/v1/experiments/{old['id']}/clone", json={}).json()
    assert (copy["semantics"], copy["cloned_from"]) == (2, old["id"])
    (warning,) = [found for found in copy["warnings"] if found["code"] == "not_comparable"]
    assert "that one's semantics are 1, this one's 2; val is cut from train now" in warning["detail"]
    (event,) = http.get(f"/v1/experiments/{copy['id']}/events").json()["items"]
    assert event["message"] == warning["detail"]

    again = http.post(f"/v1/experiments/{copy['id']}/clone", json={}).json()
    assert "not_comparable" not in [found["code"] for found in again["warnings"]]


def test_a_number_of_a_later_version_is_refused_by_name():
    assert known(1) == 1
    for number in (0, 3):
        with pytest.raises(SpecError, match=f"semantics {number}, and this version knows up to 2: upgrade"):
            known(number)
