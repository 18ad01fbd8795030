"""Sweeps: trials of one experiment with other values of some fields, proposed by a grid, at random, or by Optuna."""
