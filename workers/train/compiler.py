"""torch.compile in a warm process, which trains one network after another."""

from collections.abc import Hashable

import torch

_compiled: Hashable = None  # what decides the code that this process has compiled last


def forget_other_code(key: Hashable) -> None:
    """Drop the compiled code of this process unless it was for an equal `key`: the network and the shape of its input.

    Dynamo keeps the code of all networks in one list, and once that has eight entries (`recompile_limit`) it runs
    further networks uncompiled, with nothing but a warning. To a second shape it answers with code for any shape, which
    is slower. What is dropped remains in the cache on disk (TORCHINDUCTOR_CACHE_DIR), where the next process finds it.
    """
    global _compiled  # noqa: PLW0603 - as global as Dynamo's own cache
    if _compiled not in (None, key):
        torch._dynamo.reset()
    _compiled = key
