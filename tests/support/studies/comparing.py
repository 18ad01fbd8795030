"""A comparison whose runs train nothing and leave real predictions: as many right as their attention and seed say."""

from service.cluster.base import Launch
from tests.support.predictions import write_predictions
from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder

RIGHT = {"none": 20, "se": 21, "cbam": 30}
"""Of 40 images, 25 with any other attention; one more with an odd seed."""


def leave_predictions(launch: Launch) -> None:
    """What a training of that spec leaves: the hook `export` of the cluster in memory."""
    folder = ExperimentFolder(launch.storage, launch.key.experiment_id)
    correct = RIGHT.get(launch.spec.model.attention.type, 25) + launch.spec.train.seed % 2
    write_predictions(folder.predictions, correct=correct)


def comparison_dict(**changes: object) -> dict[str, object]:
    """Plain against CBAM, over 8 seeds."""
    variants = {"plain": {"model.attention": "none"}, "cbam": {}}
    fixed = {"margin": 0.03, "seeds": 8, "probe": False}
    return {"name": "does-cbam-help", "base": spec_dict(), "variants": variants} | fixed | changes
