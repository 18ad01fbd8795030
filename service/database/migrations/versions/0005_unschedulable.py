"""what can never fit the cluster is found without a look at the rest of the queue"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_experiments_reason", "experiments", ["state", "reason", "queued_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_experiments_reason", table_name="experiments")
