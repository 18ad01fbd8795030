"""Which names of tags a user may not give: those by which the service and MLflow say what a run is."""

from collections.abc import Iterable

RESERVED = ("cbam.", "mlflow.")
WHY_RESERVED = "names below cbam. and mlflow. are kept for the service and MLflow; choose another name, or leave it out"


def reserved(names: Iterable[str]) -> list[str]:
    """Those of the names that are not the user's to give, however they are spelt: some databases know no case."""
    return [name for name in names if name.casefold().startswith(RESERVED)]
