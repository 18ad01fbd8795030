"""sweeps: what was proposed for each trial, and what it ended with"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

OF_TRIALS: dict[str, sa.types.TypeEngine[Any]] = {
    "params": sa.JSON(),
    "params_hash": sa.String(length=64),
    "informed_by": sa.JSON(),
    "outcome": sa.String(length=32),
    "place": sa.Integer(),
    "value": sa.Double(),
    "why": sa.Text(),
}


def upgrade() -> None:
    op.add_column("studies", sa.Column("limits", sa.JSON(), nullable=True))
    for name, kind in OF_TRIALS.items():
        op.add_column("trials", sa.Column(name, kind, nullable=True))
    grid = sa.text("variant = 'grid'")
    op.create_index(
        "uq_trials_grid",
        "trials",
        ["study_id", "params_hash", "seed"],
        unique=True,
        sqlite_where=grid,
        postgresql_where=grid,
    )


def downgrade() -> None:
    op.drop_index("uq_trials_grid", "trials")
    for name in OF_TRIALS:
        op.drop_column("trials", name)
    op.drop_column("studies", "limits")
