"""Which tests share a process where pytest-xdist runs several, and which of them begin.

The tests of a file stay together, for they share its fixtures. All that start whole stacks share one process, and all
that start Ray heads another: beside each other they would fight for the cores, and the limits of their waits are met.
Both begin at once, as they take longest and mostly wait, and the other processes compute meanwhile.
"""

import pytest
from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "stack": (
        "tests/chaos/",
        "tests/browser/",
        "tests/integration/test_survives.py",
        "tests/integration/test_stack_up_down.py",
        "tests/integration/test_cli_docs.py",
        "tests/integration/test_evidence_script.py",
    ),
    "ray": (
        "tests/contract/test_cluster.py",
        "tests/contract/test_foreign_cluster.py",
        "tests/contract/test_gangs_on_gpus.py",
        "tests/contract/test_many_nodes.py",
        "tests/contract/test_placement.py",
        "tests/contract/test_standby_workers.py",
        "tests/contract/test_warm_gangs.py",
    ),
    "ranks": (  # one server forks them all
        "tests/integration/test_training_disk_full.py",
        "tests/integration/test_training_gang.py",
        "tests/integration/test_training_resume.py",
    ),
    "alone": ("tests/integration/test_gpu_script.py",),  # compiles for minutes: it must not be the last to begin
}


def group_of(nodeid: str) -> str:
    """The group of a test; its file's own where it has none."""
    path = nodeid.partition("::")[0]
    return next((group for group, paths in GROUPS.items() if path.startswith(paths)), path)


def arrange(items: list[pytest.Item]) -> None:
    """Put the groups first, in their order. Raises `UsageError` for a test that needs a group and is in another."""
    for item in items:
        for group in ("stack", "ray"):
            if item.get_closest_marker(group) and group_of(item.nodeid) not in ("stack", group):
                raise pytest.UsageError(f"{item.nodeid} is marked {group}: add its file to tests/distribution.py")
    order = [*GROUPS]
    items.sort(key=lambda item: order.index(group) if (group := group_of(item.nodeid)) in GROUPS else len(order))


class GroupScheduling(LoadScopeScheduling):
    """Gives a whole group to a process, and the next one to the first that is free."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def scheduler(config: pytest.Config, log: object) -> GroupScheduling:
    """In the order in which the tests were collected, not by their number."""
    config.option.loadscopereorder = False
    return GroupScheduling(config, log)
