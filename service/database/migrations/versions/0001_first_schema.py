"""first schema

The legal moves are data: an event refers to one by foreign key, so a move that is not among them cannot be written.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LEGAL_MOVES = {
    "QUEUED": ("STARTING", "PAUSED", "CANCELLED", "FAILED"),
    "STARTING": ("RUNNING", "QUEUED", "CANCELLING", "FAILED"),
    "RUNNING": ("QUEUED", "PAUSING", "CANCELLING", "SUCCEEDED", "FAILED"),
    "PAUSING": ("PAUSED", "CANCELLING", "SUCCEEDED", "FAILED"),
    "PAUSED": ("QUEUED", "CANCELLED"),
    "CANCELLING": ("CANCELLED", "SUCCEEDED", "FAILED"),
    "FAILED": ("QUEUED",),
    "CANCELLED": ("QUEUED",),
}


def upgrade() -> None:
    op.create_table(
        "experiments",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("passed", sa.Integer(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("desired", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("free_retries", sa.Integer(), nullable=False),
        sa.Column("charged_retries", sa.Integer(), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("mlflow_run_id", sa.String(length=64), nullable=True),
        sa.Column("tracking_closed", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("queued_at", sa.DateTime(), nullable=False),
        sa.Column("not_before", sa.DateTime(), nullable=True),
        sa.Column("deadline_at", sa.DateTime(), nullable=True),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.CheckConstraint("desired IN ('run', 'pause', 'cancel', 'yield')", name="known_desire"),
        sa.CheckConstraint(
            "state IN ('QUEUED', 'STARTING', 'RUNNING', 'PAUSING', 'PAUSED', 'CANCELLING', 'SUCCEEDED', 'FAILED', "
            "'CANCELLED')",
            name="known_state",
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_experiments_page", "experiments", ["created_at", "id"], unique=False)
    op.create_index("ix_experiments_project", "experiments", ["project", "created_at", "id"], unique=False)
    op.create_index("ix_experiments_tracking", "experiments", ["tracking_closed", "state"], unique=False)
    queue: list[str | sa.TextClause] = ["state", "owner", sa.text("priority DESC"), "queued_at", "id"]
    op.create_index("ix_experiments_queue", "experiments", queue, unique=False)
    op.create_index("ix_experiments_state", "experiments", ["state", "created_at", "id"], unique=False)
    op.create_index("ix_experiments_desired", "experiments", ["state", "desired"], unique=False)
    op.create_index("ix_experiments_deadline", "experiments", ["state", "deadline_at"], unique=False)
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "legal_moves",
        sa.Column("from_state", sa.String(length=16), nullable=False),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("from_state", "to_state"),
    )
    moves = sa.table("legal_moves", sa.column("from_state", sa.String), sa.column("to_state", sa.String))
    op.bulk_insert(moves, [{"from_state": a, "to_state": b} for a, bs in LEGAL_MOVES.items() for b in bs])
    op.create_table(
        "attempts",
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("resumed_from_step", sa.Integer(), nullable=True),
        sa.Column("last_step", sa.Integer(), nullable=False),
        sa.Column("node_ids", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("experiment_id", "number"),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=True),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["from_state", "to_state"],
            ["legal_moves.from_state", "legal_moves.to_state"],
        ),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("ix_events_experiment", "events", ["experiment_id", "seq"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body_hash", sa.String(length=64), nullable=False),
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_idempotency_keys_created_at", table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index("ix_events_experiment", table_name="events")
    op.drop_table("events")
    op.drop_table("attempts")
    op.drop_table("legal_moves")
    op.drop_table("leases")
    op.drop_index("ix_experiments_tracking", table_name="experiments")
    op.drop_index("ix_experiments_deadline", table_name="experiments")
    op.drop_index("ix_experiments_state", table_name="experiments")
    op.drop_index("ix_experiments_desired", table_name="experiments")
    op.drop_index("ix_experiments_queue", table_name="experiments")
    op.drop_index("ix_experiments_project", table_name="experiments")
    op.drop_index("ix_experiments_page", table_name="experiments")
    op.drop_table("experiments")
