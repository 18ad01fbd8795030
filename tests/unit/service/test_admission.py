"""Who goes next: examples that explain the rules, and properties that hold for every queue."""

from hypothesis import given
from hypothesis import strategies as st

from service.admission import Need, Waiting, choose, place
from service.gang import Node


def node(cpus, gpus=0.0, *, free=None, name="n"):
    return Node(name, cpus, gpus, cpus if free is None else free, gpus)


def waiting(*needs):
    return [Waiting(str(index), need) for index, need in enumerate(needs)]


def test_the_queue_is_served_in_its_order_until_the_next_does_not_fit():
    choice = choose(waiting(Need(1, 1, 0), Need(2, 1, 0), Need(1, 1, 0)), [node(2)])
    assert choice.start == ("0",), "the third would fit, but it may not pass the second, which waits for room"


def test_a_gang_starts_only_when_all_of_it_fits():
    assert choose(waiting(Need(2, 1, 0)), [node(2, free=1)]).start == ()
    assert choose(waiting(Need(2, 1, 0)), [node(1, name="a"), node(1, name="b")]).start == ("0",)


def test_a_bundle_is_never_split_over_nodes():
    choice = choose(waiting(Need(1, 2, 0)), [node(1, name="a"), node(1, name="b")])
    assert choice.start == ()
    assert "room for 0" in choice.never["0"]


def test_what_can_never_fit_is_told_why_and_holds_nobody_up():
    choice = choose(waiting(Need(4, 1, 1), Need(1, 1, 0)), [node(2)])
    assert choice.start == ("1",)
    assert "4 × (1 CPU and 1 GPU)" in choice.never["0"]
    assert "2 CPU and 0 GPU" in choice.never["0"]


needs = st.builds(Need, st.integers(1, 6), st.integers(1, 4), st.integers(0, 2))
nodes = st.lists(
    st.builds(lambda c, g, f: Node("n", c, g, min(c, f), g), st.integers(0, 8), st.integers(0, 4), st.integers(0, 8)),
    min_size=1,
    max_size=5,
)


@given(st.lists(needs, max_size=8), nodes)
def test_nothing_is_promised_twice(queue, cluster):
    chosen = choose(waiting(*queue), cluster)
    started = [queue[int(index)] for index in chosen.start]
    assert sum(need.workers * need.cpus for need in started) <= sum(node.free_cpus for node in cluster)
    assert sum(need.workers * need.gpus for need in started) <= sum(node.free_gpus for node in cluster)


@given(st.lists(needs, max_size=8), nodes)
def test_the_first_that_could_ever_fit_is_never_passed(queue, cluster):
    chosen = choose(waiting(*queue), cluster)
    able = [str(index) for index in range(len(queue)) if str(index) not in chosen.never]
    assert list(chosen.start) == able[: len(chosen.start)]


@given(needs, nodes)
def test_placing_takes_exactly_what_is_needed_or_nothing(need, cluster):
    left = place(need, cluster)
    if left is not None:
        taken = sum(node.free_cpus for node in cluster) - sum(node.free_cpus for node in left)
        assert taken == need.workers * need.cpus
        assert all(node.free_cpus >= 0 and node.free_gpus >= 0 for node in left)
