"""A package, so that the stack its tests share ends with the last of them, and not with the whole run."""
