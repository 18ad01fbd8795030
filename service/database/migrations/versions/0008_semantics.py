"""what an experiment means, by number; those that are there keep the meaning they began with"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("experiments", sa.Column("semantics", sa.Integer(), server_default="1", nullable=False))


def downgrade() -> None:
    op.drop_column("experiments", "semantics")
