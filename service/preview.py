"""What a spec would run, without running it. The one file of the service that loads torch, and only when asked."""

from cbam_core.spec import ExperimentSpec
from service.schemas import PreviewView


def preview(spec: ExperimentSpec) -> PreviewView:
    """Build the network without memory for its weights, and count. Raises SpecError where it cannot be built."""
    raise NotImplementedError
