"""comparisons of runs that were there before: an experiment may be in several, and what was not chosen is kept"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

AS_SQLITE_IS_READ = {"uq": "uq_%(table_name)s_%(column_0_name)s"}  # the constraint has no name there


def upgrade() -> None:
    op.add_column("studies", sa.Column("chosen", sa.JSON(), nullable=True))
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("trials", naming_convention=AS_SQLITE_IS_READ) as batch:
            batch.drop_constraint("uq_trials_experiment_id", type_="unique")
    else:
        op.drop_constraint("trials_experiment_id_key", "trials", type_="unique")
    op.create_index("ix_trials_experiment", "trials", ["experiment_id"])


def downgrade() -> None:
    op.execute("DELETE FROM studies WHERE chosen IS NOT NULL")
    op.execute("DELETE FROM trials WHERE study_id NOT IN (SELECT id FROM studies)")
    op.drop_index("ix_trials_experiment", "trials")
    with op.batch_alter_table("trials") as batch:
        batch.create_unique_constraint("trials_experiment_id_key", ["experiment_id"])
    with op.batch_alter_table("studies") as batch:
        batch.drop_column("chosen")
