"""keys outlast the experiment that was submitted with them; what files take on disk, and what was pruned of them"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

NEW_COLUMNS = ("disk_bytes", "checkpoint_bytes", "disk_measured_at", "pruned", "pruned_at")


def upgrade() -> None:
    _keys(foreign=False, primary="idempotency_keys_pkey")
    for name in ("disk_bytes", "checkpoint_bytes"):
        op.add_column("experiments", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("experiments", sa.Column("disk_measured_at", sa.DateTime(), nullable=True))
    op.add_column("experiments", sa.Column("pruned", sa.String(length=16), nullable=True))
    op.add_column("experiments", sa.Column("pruned_at", sa.DateTime(), nullable=True))
    op.create_index("ix_experiments_disk", "experiments", ["owner", "disk_bytes"])
    op.create_index("ix_experiments_measured", "experiments", ["disk_measured_at"])
    op.add_column("deletions", sa.Column("disk_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.create_table(
        "prunings",
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("what", sa.String(length=16), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("experiment_id"),
    )
    op.create_index("ix_prunings_at", "prunings", ["at"])


def _keys(*, foreign: bool, primary: str) -> None:
    """Make the table anew, with or without the key that has its rows fall with their experiments.

    SQLite cannot drop it in place. A primary key needs another name beside the old table's, on PostgreSQL.
    """
    op.drop_index("ix_idempotency_keys_created_at", table_name="idempotency_keys")
    op.rename_table("idempotency_keys", "old_keys")
    of_experiments = sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], ondelete="CASCADE")
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body_hash", sa.String(length=64), nullable=False),
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        *((of_experiments,) if foreign else ()),
        sa.PrimaryKeyConstraint("owner", "key", name=primary),
    )
    lost = "WHERE experiment_id IN (SELECT id FROM experiments)" if foreign else ""
    op.execute(
        "INSERT INTO idempotency_keys (owner, key, body_hash, experiment_id, created_at) "
        f"SELECT owner, key, body_hash, experiment_id, created_at FROM old_keys {lost}"
    )
    op.drop_table("old_keys")
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)


def downgrade() -> None:
    op.drop_table("prunings")
    op.drop_column("deletions", "disk_bytes")
    op.drop_index("ix_experiments_measured", table_name="experiments")
    op.drop_index("ix_experiments_disk", table_name="experiments")
    for name in NEW_COLUMNS:
        op.drop_column("experiments", name)
    _keys(foreign=True, primary="pk_idempotency_keys")
