"""The training loop and what it is made of: optimiser, schedule, gang, evaluation, checkpoints."""
