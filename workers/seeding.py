"""Randomness as a function of the seed and the step, so that nothing about it needs to be remembered to resume."""

import contextlib
import hashlib
import os
from collections.abc import Iterator

import torch


def seed_of(*parts: int | str) -> int:
    """A well-mixed 63-bit seed from what it depends on, such as (seed, "epoch", 3)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_of(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `seed_of(*parts)`."""
    return torch.Generator().manual_seed(seed_of(*parts))


@contextlib.contextmanager
def reproducible(deterministic: bool) -> Iterator[None]:
    """Only kernels that give the same bits every time, while the context is open, where `deterministic` asks for it."""
    if not deterministic:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    was_on, was_warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=was_warn_only)
        torch.backends.cudnn.benchmark = benchmark
