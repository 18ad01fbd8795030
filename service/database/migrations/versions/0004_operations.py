"""the trace an experiment belongs to; what the dispatcher tells of itself"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("experiments", sa.Column("traceparent", sa.String(length=64), nullable=True))
    op.create_table(
        "process_reports",
        sa.Column("process", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("process"),
    )


def downgrade() -> None:
    op.drop_table("process_reports")
    op.drop_column("experiments", "traceparent")
