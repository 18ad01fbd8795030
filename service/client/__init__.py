"""The Python client."""

from service.client.client import Client, Where
from service.client.experiment import ExperimentHandle, WaitTimeout

__all__ = ["Client", "ExperimentHandle", "WaitTimeout", "Where"]
