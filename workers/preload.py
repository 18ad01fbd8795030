"""Load what trainings need. Seconds of imports: a third less where nobody looks for garbage among what they bring."""

import contextlib
import gc
from collections.abc import Iterator


def load_training() -> None:
    """Import the training with torch, and with what the first optimizer of a process would import on its way."""
    with _no_collecting():
        import torch._dynamo  # noqa: F401

        import workers.attempt  # noqa: F401


def load_ahead() -> None:
    """Load what a training needs only later too: CBAM, MLflow, matplotlib. For a worker that waits for work."""
    load_training()
    with _no_collecting():
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401

        from cbam_core.attention import cbam  # noqa: F401
        from workers.tracking.mlflow_client import load_mlflow

        load_mlflow()
        gc.collect()


@contextlib.contextmanager
def _no_collecting() -> Iterator[None]:
    """While open, garbage is not collected; what has been loaded by its end, the collector never looks through again.

    It would do both again and again, as modules are objects that stay, and takes longer than some epochs for it.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_on:
            gc.enable()
