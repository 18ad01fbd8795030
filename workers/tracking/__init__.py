"""MLflow, and the journal of what it has not got yet."""
