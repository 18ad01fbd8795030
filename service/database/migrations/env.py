"""Alembic's entry: runs the migrations on the connection that `Database.migrate` gives."""

from alembic import context

from service.database.models.base import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
