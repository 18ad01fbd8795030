"""What a preview answers."""

from pydantic import Field

from service.schemas.base import View


class SiteView(View):
    """One attention module in the network, and the map it sees."""

    name: str = Field(description="path of the module in the network")
    channels: int
    height: int = Field(description="of the map, in places")
    width: int
    parameters: int
    macs: int


class MemoryView(View):
    """Bytes on each worker while it trains, estimated; the runtime itself (0.5 to 1 GB) comes on top."""

    weights: int = Field(description="and their copies in half precision")
    gradients: int
    optimizer: int = Field(description="what the optimiser remembers of each parameter")
    average: int = Field(description="the second set of weights that `ema` needs")
    activations: int = Field(description="what autograd keeps from the forward to the backward pass")
    images: int | None = Field(
        description="the dataset on the training device; null where the server does not see its folder"
    )
    total: int


class WeightsView(View):
    """What a weights file gives to the network. Names are the network's; of many, the first 20."""

    source: str
    sha256: str
    layout: str = Field(description="whose names the file has: ours, authors or timm")
    loaded: int = Field(description="weights, and running statistics, that are taken from the file")
    missing: list[str] = Field(description="of the network, that start anew")
    missing_count: int
    unexpected: list[str] = Field(description="of the file, that are left out")
    unexpected_count: int
    normalisation: str = Field(description="by whose mean and deviation images are normalised: file, imagenet, dataset")
    differs: list[str] = Field(description="fields of the model in which the experiment they are from was another")


class LrScaleView(View):
    """A factor of the learning rate, and how many parameters have it."""

    scale: float
    parameters: int


class AdviceView(View):
    """Something about the recipe to think about. It does not keep the experiment from running."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the spec")
    code: str = Field(description="the rule, for programs: narrow_bottleneck, lr_unscaled, …")
    detail: str


class PreviewView(View):
    """What would run."""

    parameters: int
    trainable_parameters: int = Field(0, description="those that learn: all but what `model.freeze` names")
    macs: int = Field(description="multiply-accumulates of one forward pass of one image")
    attention_parameters: int
    attention_macs: int
    sites: list[SiteView]
    classes: int = Field(
        description="outputs of the network; of a folder of images, as counted; 1000 where the server does not see it"
    )
    train_images: int | None = Field(
        description="without those of val; of a folder, as counted; null where the server does not see it"
    )
    val_images: int | None = Field(None, description="those that curves and choices are made on")
    test_images: int | None = Field(None, description="those of the reported number; null also where there are none")
    split: str = Field("", description="where each part comes from; empty where the server does not see the folder")
    steps_per_epoch: int | None
    total_steps: int | None
    images_per_pass: int = Field(description="images that go through the network at once on one worker")
    memory: MemoryView
    weights: WeightsView | None = Field(
        None, description="what `model.weights` gives; null also where the server does not see the file, or the classes"
    )
    lr_scales: list[LrScaleView] = Field(
        [], description="factors of the learning rate by `layer_decay` and `attention_lr_scale`, the smallest first"
    )
    warnings: list[AdviceView]
