"""Comparisons in MLflow: a parent run, a summary run for each variant, and a saved view."""
