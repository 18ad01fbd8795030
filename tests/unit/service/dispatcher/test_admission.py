"""Who goes next: examples that explain the rules, and properties that hold for every queue."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from service.cluster.base import Need, Node
from service.cluster.packing import pack
from service.dispatcher.admission import Holding, Rules, Waiting, choose


def node(cpus, gpus=0.0, *, free=None, name="n"):
    return Node(name, cpus, gpus, cpus if free is None else free, gpus)


def waits(name, workers=1, cpus=1, **more):
    sizes = workers if isinstance(workers, tuple) else (workers,)
    return Waiting(id=name, sizes=sizes, cpus=cpus, **more)


def runs(name, workers=1, cpus=1, at="n", **more):
    return Holding(id=name, need=Need(workers, cpus, 0), placed={at: workers}, **more)


def started(*arguments, **more):
    return list(choose(*arguments, **more).start)


def test_the_larger_priority_goes_first_then_the_first_come():
    queue = [waits("late", queued_at=2), waits("early", queued_at=1), waits("urgent", queued_at=3, priority=1)]
    assert started(queue, [], [node(3)]) == ["urgent", "early", "late"]


def test_a_gang_starts_only_when_all_of_it_fits():
    assert started([waits("two", 2)], [], [node(2, free=1)]) == []
    assert started([waits("two", 2)], [], [node(1, name="a"), node(1, name="b")]) == ["two"]


def test_a_bundle_is_never_split_over_nodes():
    choice = choose([waits("fat", cpus=2)], [], [node(1, name="a"), node(1, name="b")])
    assert not choice.start
    assert "room for 0" in choice.never["fat"]


def test_what_can_never_fit_is_told_why_and_holds_nobody_up():
    choice = choose([waits("huge", 4, gpus=1.0, priority=9), waits("small")], [], [node(2)])
    assert list(choice.start) == ["small"]
    assert "4 × (1 CPU and 1 GPU)" in choice.never["huge"]
    assert "2 CPU and 0 GPU" in choice.never["huge"]


def test_an_elastic_gang_takes_what_fits():
    assert choose([waits("elastic", (8, 4, 2))], [], [node(16, free=5)]).start == {"elastic": 4}
    assert choose([waits("elastic", (8, 4, 2))], [], [node(16, free=1)]).start == {}


def test_among_equals_the_owner_who_holds_the_least_goes_first():
    queue = [waits("a3", owner="ann", queued_at=1), waits("b1", owner="bob", queued_at=2)]
    holding = [runs("a1", owner="ann"), runs("a2", owner="ann")]
    assert started(queue, holding, [node(3, free=1)]) == ["b1"]


def test_one_owner_cannot_fill_the_cluster_before_the_other_has_a_turn():
    queue = [waits(f"a{i}", owner="ann", queued_at=i) for i in range(6)] + [waits("b", owner="bob", queued_at=9)]
    assert started(queue, [], [node(3)]) == ["a0", "b", "a1"]


def test_a_quota_holds_an_owner_back_and_nobody_else():
    queue = [waits("a", owner="ann"), waits("b", owner="bob", queued_at=1)]
    choice = choose(queue, [runs("a0", 2, owner="ann")], [node(8, free=6)], Rules(quota_cpus=2))
    assert list(choice.start) == ["b"]
    assert "2 CPU" in choice.over_quota["a"]


def test_small_ones_pass_a_large_one_only_so_often():
    queue = [waits("large", 4, passed=0), waits("small", queued_at=1)]
    choice = choose(queue, [runs("other", 2)], [node(4, free=2)], Rules(most_passes=3))
    assert (list(choice.start), choice.passed) == (["small"], {"large": 1})
    tired = [replace(queue[0], passed=3), queue[1]]
    assert started(tired, [runs("other", 2)], [node(4, free=2)], Rules(most_passes=3)) == []


def test_one_that_is_larger_than_a_whole_quota_is_told_that_it_can_never_start():
    queue = [waits("three", 3, gpus=0.1, owner="ann"), waits("four", 4, gpus=0.1, owner="ann", queued_at=1)]
    choice = choose(queue, [], [node(8, 8)], Rules(quota_gpus=0.3))
    assert list(choice.start) == ["three"], "three tenths are three tenths"
    assert "never" in choice.forbidden["four"]
    assert not choice.over_quota | choice.never


def test_one_that_starts_by_a_smaller_share_passes_what_came_before_it():
    queue = [waits("wide", 3, owner="ann", queued_at=1), waits("small", owner="bob", queued_at=2)]
    holding = [runs("long", owner="ann")]
    choice = choose(queue, holding, [node(4, free=3)], Rules(most_passes=3))
    assert (list(choice.start), choice.passed, choice.waits) == (["small"], {"wide": 1}, ["wide"])
    tired = [replace(queue[0], passed=3), queue[1]]
    assert started(tired, holding, [node(4, free=3)], Rules(most_passes=3)) == ["wide"]


def test_a_long_queue_does_not_look_at_every_node_for_every_comparison():
    """Counted instead of timed: once for the totals, and once for each kind of gang."""
    looks = 0

    class Counted(Node):
        def __getattribute__(self, name):
            nonlocal looks
            looks += name == "cpus"
            return super().__getattribute__(name)

    nodes = [Counted(str(index), 4, 0, 0, 0) for index in range(10)]
    queue = [waits(str(index), owner="ab"[index % 2], queued_at=index) for index in range(50)]
    assert len(choose(queue, [], nodes).waits) == 50
    assert looks <= 3 * len(nodes)


def test_a_higher_priority_displaces_the_weakest_that_may_be_displaced():
    holding = [
        runs("safe", priority=0),
        runs("weak", priority=0, preemptible=True, started_at=1),
        runs("new", priority=0, preemptible=True, started_at=2),
        runs("strong", priority=5, preemptible=True),
    ]
    choice = choose([waits("urgent", priority=3)], holding, [node(4, free=0)])
    assert choice.preempt == ("new",), "of two equals the one that has done less"
    assert not choose([waits("equal", priority=0)], holding, [node(4, free=0)]).preempt
    assert not choose([waits("wide", 4, priority=3)], holding, [node(4, free=0)]).preempt, "it would not help"


def test_nobody_is_displaced_twice_for_the_same_one_and_nobody_takes_its_room():
    holding = [runs("going", preemptible=True, yielding=True), runs("weak", preemptible=True)]
    queue = [waits("urgent", priority=3), waits("small", cpus=0.5)]
    choice = choose(queue, holding, [node(2, free=0.5)])
    assert (choice.preempt, list(choice.start)) == ((), [])


def test_only_those_are_displaced_who_must_be():
    holding = [runs("a", at="one", preemptible=True), runs("b", 2, at="two", preemptible=True, priority=1)]
    nodes = [node(1, free=0, name="one"), node(2, free=0, name="two")]
    assert choose([waits("wide", cpus=2, priority=3)], holding, nodes).preempt == ("b",)


def half_of_a_gpu(name, at="n", **more):
    return Holding(id=name, need=Need(1, 1, 0.5), placed={at: 1}, **more)


def test_parts_of_two_gpus_are_not_one():
    shared = Node("n", 8, 2, 6, 1.0, (0.5, 0.5))
    assert started([waits("whole", gpus=1.0, queued_at=1), waits("half", gpus=0.5, queued_at=2)], [], [shared]) == [
        "half"
    ]


def test_three_that_need_more_than_half_of_a_gpu_do_not_fit_on_two():
    queue = [waits(name, gpus=0.6) for name in "abc"]
    assert started(queue, [], [node(8, 2.0)]) == ["a", "b"]
    (left,) = pack(Need(2, 1, 0.6), [node(8, 2.0)])
    assert left.shared == (0.4, 0.4)


def test_whoever_shares_the_only_gpu_is_displaced_for_the_whole_of_it():
    holding = [half_of_a_gpu(name, preemptible=True) for name in ("a", "b")]
    urgent = waits("urgent", gpus=1.0, priority=1)
    assert set(choose([urgent], holding, [Node("n", 8, 1, 6, 0.0)]).preempt) == {"a", "b"}


def test_nobody_is_displaced_for_parts_that_may_lie_on_two_gpus():
    holding = [half_of_a_gpu(name, preemptible=True) for name in ("a", "b")]
    urgent = waits("urgent", gpus=1.0, priority=1)
    assert choose([urgent], holding, [Node("n", 8, 2, 6, 1.0, (0.5, 0.5))]).preempt == ()


needs = st.builds(Need, st.integers(1, 6), st.integers(1, 4), st.integers(0, 2))
clusters = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4), st.integers(0, 8)), min_size=1, max_size=5).map(
    lambda rows: [Node(str(i), c, g, min(c, f), g) for i, (c, g, f) in enumerate(rows)]
)
queues = st.lists(
    st.builds(
        lambda size, cpus, gpus, priority, owner, at: Waiting(
            id="", sizes=(size,), cpus=cpus, gpus=gpus, priority=priority, owner=owner, queued_at=at
        ),
        st.integers(1, 6),
        st.integers(1, 4),
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from("ab"),
        st.integers(0, 9),
    ),
    max_size=8,
).map(lambda items: [replace(item, id=str(i)) for i, item in enumerate(items)])


@given(queues, clusters)
def test_nothing_is_promised_twice(queue, cluster):
    choice = choose(queue, [], cluster)
    taken = [item.need(choice.start[item.id]) for item in queue if item.id in choice.start]
    assert sum(need.workers * need.cpus for need in taken) <= sum(one.free_cpus for one in cluster)
    assert sum(need.workers * need.gpus for need in taken) <= sum(one.free_gpus for one in cluster)


@given(queues, clusters)
def test_the_order_of_the_list_does_not_matter(queue, cluster):
    assert choose(queue, [], cluster) == choose(queue[::-1], [], cluster)


@given(queues, clusters)
def test_every_experiment_starts_waits_or_is_told_why(queue, cluster):
    choice = choose(queue, [], cluster)
    assert not set(choice.start) & set(choice.never)
    assert set(choice.passed) <= {item.id for item in queue} - set(choice.start) - set(choice.never)


@given(needs, clusters)
def test_placing_takes_exactly_what_is_needed_or_nothing(need, cluster):
    left = pack(need, cluster)
    if left is not None:
        taken = sum(one.free_cpus for one in cluster) - sum(one.free_cpus for one in left)
        assert taken == need.workers * need.cpus
        assert all(one.free_cpus >= 0 and one.free_gpus >= 0 for one in left)


@given(needs, clusters)
def test_a_gang_is_placed_on_one_node_wherever_one_can_hold_it(need, cluster):
    alone = [one for one in cluster if pack(need, [one]) is not None]
    left = pack(need, cluster)
    assert pack(need, cluster, on_one=True) == (left if alone else None)
    if alone:
        (taken,) = [before for before, after in zip(cluster, left, strict=True) if before != after]
        assert (taken.free_gpus, taken.free_cpus) == min((one.free_gpus, one.free_cpus) for one in alone)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.integers(1, 3), st.integers(0, 1), st.sampled_from("ab"))
def test_nothing_starves_under_an_endless_stream_of_small_ones(sizes, length, held, other):
    """Wide gangs among ever new narrow ones, of the same owner or of one who holds less: each starts after a bounded
    time, as passes are bounded.
    """
    rules, total, now = Rules(most_passes=5), 4, 0
    waiting = [waits(f"wide{i}", size, owner="a") for i, size in enumerate(sizes)]
    endless = [runs("long", held, owner="a")] if held else []
    running: dict[str, tuple[Holding, int]] = {}  # name -> what it holds, and its end
    while any(item.id.startswith("wide") for item in waiting):
        now += 1
        assert now < 200 * len(sizes), "starved"
        running = {name: (one, end) for name, (one, end) in running.items() if end > now}
        if not any(item.id.startswith("small") for item in waiting):
            waiting.append(waits(f"small{now}", 1, owner=other, queued_at=now))
        holding = endless + [one for one, _ in running.values()]
        free = total - sum(one.need.workers for one in holding)
        choice = choose(waiting, holding, [node(total, free=free)], rules)
        for item in [item for item in waiting if item.id in choice.start]:
            waiting.remove(item)
            running[item.id] = (runs(item.id, choice.start[item.id], owner=item.owner), now + length)
        waiting = [replace(item, passed=item.passed + choice.passed.get(item.id, 0)) for item in waiting]
