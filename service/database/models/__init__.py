"""The tables, a file for each kind of rows. To import one is to know all: they refer to each other."""

__all__ = ["auth", "experiments", "operations", "webhooks"]
