"""The Python client. Importing this package loads nothing of it; using a name does."""

from typing import TYPE_CHECKING

from cbam_core import lazy_names

if TYPE_CHECKING:
    from service.client.client import Client as Client
    from service.client.client import Where as Where
    from service.client.comparing.handle import ComparisonHandle as ComparisonHandle
    from service.client.experiment import ExperimentHandle as ExperimentHandle
    from service.client.experiments import Experiments as Experiments
    from service.client.sweeping.handle import SweepHandle as SweepHandle
    from service.client.waiting import WaitTimeout as WaitTimeout

__all__ = ["Client", "ComparisonHandle", "ExperimentHandle", "Experiments", "SweepHandle", "WaitTimeout", "Where"]

__getattr__ = lazy_names(
    __name__,
    {
        "Client": "client",
        "Where": "client",
        "ComparisonHandle": "comparing.handle",
        "SweepHandle": "sweeping.handle",
        "ExperimentHandle": "experiment",
        "Experiments": "experiments",
        "WaitTimeout": "waiting",
    },
)
