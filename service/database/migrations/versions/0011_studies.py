"""studies: many experiments that one spec asks for, and the decisions about them"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

LEGAL_MOVES = {
    "ACTIVE": ("PAUSING", "STOPPING", "SUCCEEDED"),
    "PAUSING": ("ACTIVE", "PAUSED", "STOPPING", "SUCCEEDED"),
    "PAUSED": ("ACTIVE", "STOPPING"),
    "STOPPING": ("CANCELLED", "FAILED"),
    "SUCCEEDED": ("ACTIVE",),
    "FAILED": ("ACTIVE",),
    "CANCELLED": ("ACTIVE",),
}


def upgrade() -> None:
    op.add_column("experiments", sa.Column("study_id", sa.String(length=32), nullable=True))
    op.create_index("ix_experiments_study", "experiments", ["study_id", "created_at", "id"])
    _create_studies()
    op.create_table(
        "trials",
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("variant", sa.String(length=64), nullable=False),
        sa.Column("block", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("observed_at", sa.DateTime(), nullable=True),
        sa.Column("correct", sa.Integer(), nullable=True),
        sa.Column("images", sa.Integer(), nullable=True),
        sa.Column("observed", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", "number"),
        sa.UniqueConstraint("experiment_id"),
        sa.UniqueConstraint("study_id", "variant", "block", name="uq_trials_place"),
    )
    op.create_table(
        "legal_study_moves",
        sa.Column("from_state", sa.String(length=16), nullable=False),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("from_state", "to_state"),
    )
    moves = sa.table("legal_study_moves", sa.column("from_state", sa.String), sa.column("to_state", sa.String))
    op.bulk_insert(moves, [{"from_state": a, "to_state": b} for a, bs in LEGAL_MOVES.items() for b in bs])
    op.create_table(
        "decisions",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=True),
        sa.Column("to_state", sa.String(length=16), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["from_state", "to_state"], ["legal_study_moves.from_state", "legal_study_moves.to_state"]
        ),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("ix_decisions_study", "decisions", ["study_id", "seq"])


def _create_studies() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("specs", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("seeds", sa.Integer(), nullable=False),
        sa.Column("seeds_chosen", sa.Boolean(), nullable=False),
        sa.Column("seeds_added", sa.Boolean(), nullable=False),
        sa.Column("classes", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("desired", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.CheckConstraint(
            "state IN ('ACTIVE', 'PAUSING', 'PAUSED', 'STOPPING', 'SUCCEEDED', 'FAILED', 'CANCELLED')",
            name="known_study_state",
        ),
        sa.CheckConstraint("desired IN ('run', 'pause', 'cancel')", name="known_study_desire"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_studies_page", "studies", ["kind", "created_at", "id"])
    op.create_index("ix_studies_owner", "studies", ["owner", "created_at", "id"])
    op.create_index("ix_studies_state", "studies", ["state", "created_at", "id"])


def downgrade() -> None:
    for table in ("decisions", "legal_study_moves", "trials", "studies"):
        op.drop_table(table)
    op.drop_index("ix_experiments_study", "experiments")
    op.drop_column("experiments", "study_id")
