"""Everything `cbam_core` and `workers` raise on purpose. The docstring is the default message."""


class CbamError(Exception):
    """Something went wrong in cbam-lab."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class SpecError(CbamError):
    """The experiment spec cannot be used."""


class UnknownAttention(SpecError):
    """No attention module has this name."""


class UnknownBackbone(SpecError):
    """No backbone has this name."""


class AttentionNotSupported(SpecError):
    """This backbone cannot carry attention."""


class StateDictMismatch(CbamError):
    """These weights do not belong to this network."""


class NoFeatureMap(CbamError, ValueError):
    """This network has no feature map that can be explained."""


class DataError(CbamError):
    """The dataset is missing or damaged."""


class LoaderDied(CbamError):
    """A process that reads images has ended."""


class SharedMemoryFull(CbamError):
    """There is too little shared memory (/dev/shm)."""


class LossNotFinite(CbamError):
    """The loss is not finite."""


class ExportError(CbamError):
    """The trained network cannot be exported."""


class CheckpointError(CbamError):
    """The checkpoint cannot be written or read."""


class Stalled(CbamError):
    """The training no longer moves."""


class PeerLost(CbamError):
    """Another worker of this gang is gone."""


class Superseded(CbamError):
    """A later attempt of this experiment has begun."""


class WeightsUnavailable(CbamError):
    """The weights to start from cannot be fetched, or read."""
