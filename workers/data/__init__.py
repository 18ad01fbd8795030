"""The images: datasets by name, held on the training device or read ahead, and the batches every step sees."""

from workers.data.datasets.base import Dataset, Split
from workers.data.datasets.registry import load_dataset

__all__ = ["Dataset", "Split", "load_dataset"]
