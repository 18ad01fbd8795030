"""What runs on a Ray worker, or under torchrun, or alone: data, the training loop, checkpoints, tracking."""
