"""What owners keep on shared storage, as sums of what the dispatcher has measured: asking costs no look at a disk."""

from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.database.models.experiments import Deletion, Experiment
from service.domain.values import human_bytes
from service.errors import DiskQuotaExceeded

WAY_OUT = "delete experiments, or prune them (`cbam prune --older-than 30d`)"


def disk_usage(session: Session, owners: Collection[str]) -> dict[str, int]:
    """Bytes of each owner's files. What is deleted counts until the files are gone."""
    used = dict.fromkeys(owners, 0)
    for table in (Experiment, Deletion):
        sums = select(table.owner, func.sum(table.disk_bytes)).where(table.owner.in_(owners)).group_by(table.owner)
        for owner, total in session.execute(sums):
            used[owner] += int(total)
    return used


def require_room(session: Session, owner: str, quota: int | None) -> None:
    """Raise DiskQuotaExceeded where the owner keeps as much as one may, or more."""
    if quota is not None and (used := disk_usage(session, [owner])[owner]) >= quota:
        raise DiskQuotaExceeded(
            f"{owner} keeps {human_bytes(used)} of files, and {human_bytes(quota)} are allowed; {WAY_OUT}"
        )
