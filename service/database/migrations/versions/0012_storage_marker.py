"""the marker by which the service knows its storage, while that is mounted"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "storage_markers",
        sa.Column("marker", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("marker"),
    )


def downgrade() -> None:
    op.drop_table("storage_markers")
