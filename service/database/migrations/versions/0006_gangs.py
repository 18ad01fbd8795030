"""which gang an attempt was claimed for: a warm one bears the name of another attempt"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("gang", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "gang")
