"""The images: datasets by name, held as uint8 on the training device, and the batches every step sees."""

from workers.data.dataset import Dataset, Split
from workers.data.registry import load_dataset

__all__ = ["Dataset", "Split", "load_dataset"]
