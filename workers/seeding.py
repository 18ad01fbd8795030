"""Randomness as a function of the seed and the step, so that nothing about it needs to be remembered to resume."""

import contextlib
import os
from collections.abc import Iterator

import torch

from cbam_core.seeding import seed_of

__all__ = ["generator_of", "reproducible", "seed_generators", "seed_of"]


def generator_of(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `seed_of(*parts)`."""
    return torch.Generator().manual_seed(seed_of(*parts))


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's own generators of the CPU and of `device`.

    torch.manual_seed seeds every kind of device there might be, and where none is in use yet, writes down the call
    stack for later: a hundred times the work, at every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def reproducible(deterministic: bool) -> Iterator[None]:
    """While open, only kernels that give the same bits every time where `deterministic` asks for it; else the fastest.

    cuBLAS reads its setting once, when this process first multiplies on a GPU, whatever that attempt asks for; a later
    one in the same process may ask for more.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    was_on, was_warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=was_warn_only)
        torch.backends.cudnn.benchmark = benchmark
