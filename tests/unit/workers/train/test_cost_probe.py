"""The probe of cost with real networks: order, rounds, what it says, and how it is left off."""

import json
import statistics
from itertools import pairwise

import pytest
import torch

from workers.protocol.assignment import Assignment
from workers.protocol.outcome import read_outcome
from workers.protocol.probe import ROUNDS, Probe, ProbeNumbers, probe_order
from workers.train.learner import Learner
from workers.train.probe import SETTLING_STEPS, WARM_UP_STEPS, _plan

SECONDS = 0.01


@pytest.fixture
def probed(assign, tiny_spec):
    """An assignment that measures ResNet-56 against ResNet-20."""

    def make(**fields):
        train = {"deterministic": False, "global_batch_size": 32} | fields.pop("train", {})
        control = tiny_spec(model={"attention": {"type": "none"}}, train=train)
        variant = tiny_spec(model={"backbone": "cifar_resnet56", "attention": {"type": "none"}}, train=train)
        return assign(variant, probe=Probe(control, SECONDS), **fields)

    return make


@pytest.fixture
def steps(monkeypatch):
    """Who made each step, `c` or `v`; the rest of a step is as ever."""
    made, learn = [], Learner.learn

    def watched(self, images, targets, **options):
        made.append(("v" if len(list(self.network.parameters())) > 100 else "c", images, self.network))
        return learn(self, images, targets, **options)

    monkeypatch.setattr(Learner, "learn", watched)
    return made


def test_both_take_turns_for_eight_rounds(probed, train, steps):
    ends = []

    def note(progress):
        if progress.step > len(ends):
            ends.append(len(steps))

    outcome, seen = train(probed(), stop_when=note)
    assert outcome.outcome == "succeeded", outcome.message
    assert (ROUNDS, len(ends), outcome.step) == (8, 16, 16)
    warm_up = [who for who, *_ in steps[: 2 * WARM_UP_STEPS]]
    assert warm_up == ["c"] * WARM_UP_STEPS + ["v"] * WARM_UP_STEPS
    turns = [{who for who, *_ in steps[a:b]} for a, b in zip([len(warm_up), *ends], ends, strict=False)]
    assert turns == [{who} for who in "cvvccvvccvvccvvc"]
    assert min(b - a for a, b in pairwise(ends)) >= SETTLING_STEPS + 3
    assert {progress.total_steps for progress in seen if progress.phase == "training"} == {16}


def test_it_says_what_it_measured_and_leaves_no_weights(probed, train, steps):
    assignment = probed()
    outcome, _ = train(assignment)
    numbers = ProbeNumbers.from_dict(outcome.summary["probe"])
    assert (len(numbers.control), len(numbers.variant), numbers.memory) == (8, 8, None)
    ratio = statistics.median(numbers.variant) / statistics.median(numbers.control)
    assert 0.1 < ratio < 0.9, "a network of 56 layers against one of 20"
    assert outcome.summary.keys() >= {"device", "world_size", "torch", "code", "data", "macs"}
    assert "images_per_second" not in outcome.summary, "that of a training"
    assert read_outcome(assignment.folder.attempt(1)) == outcome
    assert not assignment.folder.export.exists()
    assert not assignment.folder.checkpoints.exists()
    assert not assignment.folder.journal.exists(), "MLflow shows trainings"
    assert json.loads(json.dumps(outcome.to_dict())) == outcome.to_dict()


def test_every_step_does_the_same_work(probed, train, steps):
    """One batch of each, and weights that stay where they are."""
    first = {}

    def note(_progress):
        for who, _, network in steps:
            first.setdefault(who, [weight.detach().clone() for weight in network.parameters()])

    train(probed(), stop_when=note)
    for who in "cv":
        mine = [(images, network) for owner, images, network in steps if owner == who]
        assert len({images.data_ptr() for images, _ in mine}) == 1
        for before, after in zip(first[who], mine[-1][1].parameters(), strict=True):
            torch.testing.assert_close(after.detach(), before, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("asked", "ending"), [("pause", "paused"), ("cancel", "cancelled")])
def test_one_that_is_left_off_begins_anew(probed, train, asked, ending):
    outcome, _ = train(probed(), stop_when=lambda progress: asked if progress.step == 5 else None)
    assert (outcome.outcome, outcome.step, outcome.summary) == (ending, 0, {})
    again, _ = train(probed(attempt=2, token="t2"))
    assert (again.outcome, again.step) == ("succeeded", 16)


def test_a_compiled_control_is_refused_without_a_compiler_by_name(probed, train, monkeypatch):
    monkeypatch.setattr("workers.attempt.require_compiler", lambda _: (_ for _ in ()).throw(RuntimeError("no g++")))
    assignment = probed()
    compiled = assignment.probe.control.model_copy(
        update={"train": assignment.probe.control.train.model_copy(update={"compile": True})}
    )
    outcome, _ = train(Assignment(**vars(assignment) | {"probe": Probe(compiled, SECONDS)}))
    assert (outcome.outcome, "no g++" in outcome.message) == ("failed", True)


def test_an_assignment_keeps_its_probe_as_json(probed):
    assignment = probed()
    assert Assignment.from_dict(json.loads(json.dumps(assignment.to_dict()))) == assignment
    older = {name: value for name, value in assignment.to_dict().items() if name != "probe"}
    assert Assignment.from_dict(older).probe is None


@pytest.mark.parametrize(
    ("seconds", "step", "plan"),
    [(2.0, 0.001, (9, 222)), (2.0, 0.1, (9, 2)), (2.0, 0.3, (5, 1)), (2.0, 5.0, (3, 1)), (2.0, 0.0, (9, 222_222))],
)
def test_a_measurement_has_an_odd_number_of_parts(seconds, step, plan):
    assert _plan(seconds, step) == plan


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [],
        {},
        {"control": [1.0] * 8, "variant": [1.0] * 7},
        {"control": [1.0] * 8, "variant": [float("inf")] * 8},
        {"control": [0.0] * 8, "variant": [1.0] * 8},
        {"control": ["1"] * 8, "variant": [1.0] * 8},
        {"control": [1.0] * 9, "variant": [1.0] * 9},
    ],
)
def test_what_no_probe_has_written_is_none(stored):
    assert ProbeNumbers.from_dict(stored) is None


def test_numbers_come_back_as_they_were():
    numbers = ProbeNumbers((1.0,) * 8, (2.0,) * 8, (100, 110))
    assert ProbeNumbers.from_dict(json.loads(json.dumps(numbers.to_dict()))) == numbers
    assert ProbeNumbers.from_dict(numbers.to_dict() | {"memory": [1, "x"]}).memory is None
    assert len(probe_order()) == 2 * ROUNDS
