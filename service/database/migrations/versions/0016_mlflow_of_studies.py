"""MLflow's experiment beside the run of an experiment, and the MLflow runs of studies"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("experiments", sa.Column("mlflow_experiment_id", sa.String(length=64), nullable=True))
    op.create_table(
        "study_runs",
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("creation", sa.String(length=32), nullable=False),
        sa.Column("experiment_id", sa.String(length=64), nullable=True),
        sa.Column("run_id", sa.String(length=64), nullable=True),
        sa.Column("summaries", sa.JSON(), nullable=False),
        sa.Column("linked", sa.JSON(), nullable=False),
        sa.Column("told", sa.String(length=255), nullable=False),
        sa.Column("finished", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("study_id"),
    )


def downgrade() -> None:
    op.drop_table("study_runs")
    op.drop_column("experiments", "mlflow_experiment_id")
