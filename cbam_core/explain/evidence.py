"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391), computed by Captum: where the evidence for a class lies."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbam_core.explain.cost import evaluating


def grad_cam(
    network: nn.Module, images: Tensor, *, target: Tensor | int | None = None, layer: str | None = None
) -> npt.NDArray[np.float32]:
    """Heat maps (N H W, from 0 to 1 where there is any evidence) for `images` (N C H W), at the images' resolution.

    target  the class whose evidence is shown, one for all or one each; the predicted class where left out
    layer   dotted name of the module whose map is explained; the last one wider than one place where left out

    The network, its gradients included, is left as it was. Raises ValueError where the network has no such map, and
    ImportError where Captum is not installed (`pip install cbam-lab[explain]`).
    """
    from captum.attr import LayerGradCam

    with evaluating(network):
        with torch.no_grad():
            predicted = network(images).argmax(1)
        name = layer or _last_map(network, images)
        explained = LayerGradCam(network, network.get_submodule(name))
        heat = explained.attribute(images, target=predicted if target is None else target, relu_attributions=True)
    heat = F.interpolate(heat.detach(), images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    peak = heat.amax((1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
    array: npt.NDArray[np.float32] = (heat / peak).float().cpu().numpy()
    return array


def _last_map(network: nn.Module, images: Tensor) -> str:
    """The module that returns the last feature map with more than one place. Raises ValueError where none does."""
    found: list[str] = []
    handles = [
        module.register_forward_hook(
            lambda _m, _i, output, name=name: (
                found.append(name)
                if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1
                else None
            )
        )
        for name, module in network.named_modules()
    ]
    try:
        with torch.no_grad():
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError("no module of this network returns a feature map with more than one place")
    return found[-1]
