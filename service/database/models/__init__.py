"""The tables, a file for each kind of rows. To import one is to know all, which backups and migrations rely on."""

from service.database.models import auth, experiments, operations, studies, webhooks

__all__ = ["auth", "experiments", "operations", "studies", "webhooks"]
