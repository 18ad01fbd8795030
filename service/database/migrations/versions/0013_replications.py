"""which comparison a comparison repeats with fresh seeds"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("studies") as batch:
        batch.add_column(sa.Column("replicates", sa.String(length=32), nullable=True))
        batch.create_index("ix_studies_replicates", ["replicates"])


def downgrade() -> None:
    with op.batch_alter_table("studies") as batch:
        batch.drop_index("ix_studies_replicates")
        batch.drop_column("replicates")
