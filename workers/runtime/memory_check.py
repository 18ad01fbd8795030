"""Whether a worker has given back the memory that an attempt took: one that has not is not given another attempt."""

import gc
import sys

import psutil

GPU_LEFT_BYTES = 64 * 2**20  # what caches of torch's may keep; a leaked network is larger
HOST_GROWTH_BYTES = 512 * 2**20  # between the ends of two attempts: allocators keep some, a leak adds up


class Footprint:
    """The memory of this process at the ends of its attempts. The first end is the floor that later ones return to."""

    def __init__(self) -> None:
        self._floor_bytes: int | None = None

    def is_back(self) -> bool:
        """Collect what is no longer used, and say whether GPU and host memory are back where they were."""
        gc.collect()
        if self._floor_bytes is None:
            gc.freeze()  # torch and what else stays loaded: to look through it again takes longer than a short step
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch._C._cuda_clearCublasWorkspaces()  # 32 MiB for each thread that multiplied: the training's, autograd's
            torch.cuda.empty_cache()
            if torch.cuda.memory_allocated() > GPU_LEFT_BYTES:
                return False
        resident = psutil.Process().memory_info().rss
        self._floor_bytes = min(resident, self._floor_bytes or resident)
        return resident - self._floor_bytes <= HOST_GROWTH_BYTES
