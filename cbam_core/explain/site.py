"""What is said of one attention module of a network; torch-free, for those who only pass it on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AttentionSite:
    """One attention module of a network: its dotted name, its class, the map it sees, and what it adds."""

    name: str
    kind: str
    channels: int
    height: int
    width: int
    parameters: int
    macs: int
