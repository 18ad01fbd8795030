"""Use cases of experiments: submit, clone, change, list, read."""
