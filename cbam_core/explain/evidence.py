"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391), computed by Captum: where the evidence for a class lies."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbam_core.errors import NoFeatureMap
from cbam_core.explain.cost import evaluating

Layout = Literal["NCHW", "NHWC", "NLC"]
Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]


def grad_cam(
    network: nn.Module, images: Tensor, *, target: Tensor | int | None = None, layer: str | None = None
) -> npt.NDArray[np.float32]:
    """Heat maps (N H W, from 0 to 1 where there is any evidence) for `images` (N C H W), at the images' resolution.

    target  the class whose evidence is shown, one for all or one each; the predicted class where left out
    layer   dotted name of the module whose map is explained, N C H W or N H W C; where left out, the last one wider
            than one place through which all goes that the scores know of the image

    The network, its gradients included, is left as it was. Raises NoFeatureMap (a ValueError) where that is no map
    but tokens, as in vision transformers, or there is none, and ImportError where Captum is not installed
    (`pip install cbam-lab[explain]`).
    """
    from captum.attr import LayerGradCam

    with evaluating(network):
        with torch.no_grad():
            predicted = network(images).argmax(1)
        name, layout = _last_map(network, images[:1]) if layer is None else (layer, _layout_of(network, layer, images))
        with _channels_first(network.get_submodule(name), layout) as module:
            explained = LayerGradCam(network, module)
            heat = explained.attribute(images, target=predicted if target is None else target, relu_attributions=True)
    heat = F.interpolate(heat.detach(), images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    peak = heat.amax((1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
    array: npt.NDArray[np.float32] = (heat / peak).float().cpu().numpy()
    return array


def _last_map(network: nn.Module, image: Tensor) -> tuple[str, Layout]:
    """The last module with more than one place that no path from the image (1 C H W) to the scores goes around."""
    for name, shape in reversed(_outputs(network, image).items()):
        layout = _layout(shape, image)
        if layout is None or not _all_goes_through(network, name, image):
            continue
        if layout == "NLC":
            raise NoFeatureMap(f"the last map of this network are tokens, N L C ({name or 'its output'}): give a layer")
        return name, layout
    raise NoFeatureMap("no module returns a feature map with more than one place that all evidence goes through")


def _layout_of(network: nn.Module, layer: str, images: Tensor) -> Layout:
    """The layout of the map of a module that the caller has chosen."""
    shape = _outputs(network, images[:1]).get(layer)
    layout = None if shape is None else _layout(shape, images)
    if layout is None or layout == "NLC":
        raise NoFeatureMap(f"{layer} returns no feature map with more than one place, once for an image")
    return layout


def _layout(shape: torch.Size, image: Tensor) -> Layout | None:
    """The layout of a map of one image, from the axes that shrank alike; None for what has no places."""
    if len(shape) == 3:
        return "NLC" if min(shape[1:]) > 1 else None
    if len(shape) != 4:
        return None

    def distortion(height: int, width: int) -> float:
        return abs(math.log(image.shape[2] / height) - math.log(image.shape[3] / width))

    first = distortion(shape[2], shape[3]) <= distortion(shape[1], shape[2])
    height, width = shape[2:] if first else shape[1:3]
    return None if height * width == 1 else "NCHW" if first else "NHWC"


def _outputs(network: nn.Module, image: Tensor) -> dict[str, torch.Size]:
    """Shapes of the tensors that modules return for one image, in the order of the calls; of those called once."""
    found: dict[str, torch.Size] = {}
    calls: dict[str, int] = {}

    def note(name: str) -> Hook:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(output, Tensor) and output.shape[:1] == (1,):
                found[name] = output.shape

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules()]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return {name: shape for name, shape in found.items() if calls[name] == 1}


def _all_goes_through(network: nn.Module, name: str, image: Tensor) -> bool:
    """Whether the scores no longer depend on the image once the output of the module `name` does not."""
    weights = {key: weight.detach() for key, weight in network.named_parameters()}
    cut: Hook = lambda _module, _inputs, output: output.detach()  # noqa: E731
    handle = network.get_submodule(name).register_forward_hook(cut)
    try:
        with torch.enable_grad():
            scores: Tensor = torch.func.functional_call(network, weights, (image.detach().clone().requires_grad_(),))
    finally:
        handle.remove()
    return not scores.requires_grad


@contextmanager
def _channels_first(module: nn.Module, layout: Layout) -> Iterator[nn.Module]:
    """`module`, or where its map is N H W C, a module that sees the same map as N C H W meanwhile."""
    if layout == "NCHW":
        yield module
        return
    seen = nn.Identity()
    turn: Hook = lambda _module, _inputs, output: seen(output.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # noqa: E731
    handle = module.register_forward_hook(turn)
    try:
        yield seen
    finally:
        handle.remove()
