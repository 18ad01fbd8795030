"""Weights and programs of a finished training."""
