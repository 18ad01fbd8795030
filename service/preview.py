"""What a spec would run, without running it. The one file of the service that loads torch, and only when asked."""

from cbam_core.datasets import DATASETS
from cbam_core.spec import ExperimentSpec
from service.schemas import PreviewView, SiteView

DEFAULT_CLASSES = 1000  # where only the folder on the workers' disk knows


def preview(spec: ExperimentSpec) -> PreviewView:
    """Build the network without memory for its weights, and count. Raises SpecError where it cannot be built."""
    import torch

    from cbam_core.explain import describe
    from cbam_core.networks import build_network

    facts = DATASETS[spec.data.dataset]
    with torch.device("meta"):
        network = build_network(spec.model, facts.classes or DEFAULT_CLASSES, facts.channels)
    cost = describe(network, (facts.channels, spec.data.image_size, spec.data.image_size))
    steps = None if facts.train_images is None else facts.train_images // spec.train.global_batch_size
    return PreviewView(
        parameters=cost.parameters,
        macs=cost.macs,
        attention_parameters=sum(site.parameters for site in cost.attention),
        attention_macs=sum(site.macs for site in cost.attention),
        sites=[
            SiteView(name=site.name, channels=site.channels, parameters=site.parameters, macs=site.macs)
            for site in cost.attention
        ],
        classes=facts.classes or DEFAULT_CLASSES,
        train_images=facts.train_images,
        steps_per_epoch=steps,
        total_steps=None if steps is None else steps * spec.train.epochs,
    )
