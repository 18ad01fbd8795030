"""The cluster as it was last seen, reports of processes, the lease, and the marker of storage."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    String,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from service.database.models.base import Base, Words


class ClusterRow(Base):
    """What the leading dispatcher last saw of the cluster. One row; the API asks nobody else."""

    __tablename__ = "cluster"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    at: Mapped[datetime]
    reachable: Mapped[bool]
    message: Mapped[str] = mapped_column(Words, default="")
    nodes: Mapped[list[dict[str, Any]]] = mapped_column(JSON)


class ProcessReport(Base):
    """What a process that opens no port has to say: its numbers as Prometheus reads them, and why its work fails."""

    __tablename__ = "process_reports"

    process: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(255))
    at: Mapped[datetime]
    metrics: Mapped[str] = mapped_column(Text)
    trouble: Mapped[str] = mapped_column(Text, default="", server_default="")  # empty while all goes well


class Lease(Base):
    """Who leads. One row for the dispatcher; it must be renewed before it expires."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    token: Mapped[str] = mapped_column(String(64))
    holder: Mapped[str] = mapped_column(String(255))
    expires_at: Mapped[datetime]


class StorageMarker(Base):
    """What the file holds by which storage is known (service/dispatcher/storage_marker.py). At most one row."""

    __tablename__ = "storage_markers"

    marker: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime]
