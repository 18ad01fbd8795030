"""lists by tag, name, priority and time; descriptions, copies, deletions; what is seen of the cluster"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SORTED = {"name": "name", "priority": "priority", "started": "started_at", "ended": "ended_at"}
BATCH = 1000


def upgrade() -> None:
    op.add_column("experiments", sa.Column("description", sa.Text(), nullable=False, server_default=""))
    op.add_column("experiments", sa.Column("cloned_from", sa.String(length=32), nullable=True))
    for name, column in SORTED.items():
        op.create_index(f"ix_experiments_{name}", "experiments", [column, "created_at", "id"], unique=False)
    op.create_table(
        "labels",
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("value", sa.String(length=512), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("experiment_id", "key"),
    )
    _label_all()
    op.create_index("ix_labels_page", "labels", ["key", "value", "created_at", "experiment_id"], unique=False)
    op.create_table(
        "deletions",
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("experiment_id"),
    )
    op.create_index("ix_deletions_at", "deletions", ["at"], unique=False)
    op.create_table(
        "cluster",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("reachable", sa.Boolean(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("nodes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _label_all() -> None:
    """Label the experiments that are there. Read as text: what JSON means differs between the databases."""
    connection = op.get_bind()
    labels = sa.table("labels", *(sa.column(name) for name in ("experiment_id", "key", "value", "created_at")))
    read = sa.text(
        "SELECT id, CAST(tags AS TEXT), CAST(spec AS TEXT), created_at FROM experiments "
        "WHERE id > :last ORDER BY id LIMIT :batch"
    )
    last = ""
    while rows := connection.execute(read, {"last": last, "batch": BATCH}).all():
        found = [
            {"experiment_id": row_id, "key": key, "value": value, "created_at": created_at}
            for row_id, tags, spec, created_at in rows
            for key, value in _labels(json.loads(tags), json.loads(spec)).items()
        ]
        connection.execute(sa.insert(labels), found)
        last = rows[-1][0]


def _labels(tags: dict[str, str], spec: dict[str, Any]) -> dict[str, str]:
    model = spec["model"]
    facets = {
        ":backbone": model["backbone"],
        ":attention": model["attention"]["type"],
        ":dataset": spec["data"]["dataset"],
    }
    return tags | facets


def downgrade() -> None:
    op.drop_table("cluster")
    op.drop_index("ix_deletions_at", table_name="deletions")
    op.drop_table("deletions")
    op.drop_index("ix_labels_page", table_name="labels")
    op.drop_table("labels")
    for name in reversed(SORTED):
        op.drop_index(f"ix_experiments_{name}", table_name="experiments")
    op.drop_column("experiments", "cloned_from")
    op.drop_column("experiments", "description")
