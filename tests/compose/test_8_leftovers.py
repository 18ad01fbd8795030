"""What an interrupted run of these tests left is no part of the next one."""

from tests.compose.containers import docker, remove_leftovers

PROJECT = "cbam-test-leftovers"
LABEL = f"--label=com.docker.compose.project={PROJECT}"


def _left(kind: str, *words: str) -> list[str]:
    return docker(kind, "ls", *words, "--quiet", f"--filter={LABEL.removeprefix('--')}").split()


def test_leftovers_of_a_project_are_removed_and_others_are_not(engine: None):
    docker("network", "create", LABEL, PROJECT)
    docker("volume", "create", LABEL, PROJECT)
    docker("volume", "create", f"{LABEL}-of-others", f"{PROJECT}-of-others")
    docker("create", LABEL, f"--network={PROJECT}", f"--volume={PROJECT}:/state", "cbam-lab")
    try:
        remove_leftovers(PROJECT)
        assert [*_left("container", "--all"), *_left("network"), *_left("volume")] == []
        assert docker("volume", "inspect", f"{PROJECT}-of-others")
    finally:
        docker("volume", "rm", f"{PROJECT}-of-others")
