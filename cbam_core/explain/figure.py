"""One picture of what attention does with one image, for a reader who has nothing but the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cbam_core.explain.cost import evaluating
from cbam_core.explain.evidence import grad_cam
from cbam_core.explain.maps import Maps, attention_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float32]
SHOWN_CLASSES = 5


def attention_figure(
    network: nn.Module,
    image: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    picture: Tensor | None = None,
    max_blocks: int = 8,
) -> Figure:
    """The image, the class scores, Grad-CAM, and the gates of every block, in one matplotlib figure.

    image        what the network gets, C H W
    class_names  what to call the classes; their numbers where left out
    picture      what a person shall see instead of `image`, C H W from 0 to 1: the image before normalisation
    max_blocks   at most so many blocks, evenly chosen, the last always among them

    Raises ValueError where the network has no attention. Uses no global state of pyplot; save it with `savefig`.
    """
    from matplotlib.figure import Figure

    gates = attention_maps(network, image[None])
    with evaluating(network), torch.no_grad():
        scores = network(image[None]).float().softmax(1)[0].cpu().numpy()
    names = list(class_names) if class_names is not None else [f"class {index}" for index in range(len(scores))]
    shown = _picture(image if picture is None else picture)
    sites = _evenly(list(gates), max_blocks)

    places = {site: found for site in sites if (found := _places(gates[site])) is not None}
    channels = {site: found for site in sites if (found := _channels(gates[site])) is not None}

    below = [row for row in (places, channels) if row]
    figure = Figure(figsize=(max(9.0, 1.9 * len(sites) + 1.2), 3.4 + 2.6 * len(below)), layout="constrained")
    rows: Any = iter(figure.subfigures(1 + len(below), 1, squeeze=False, height_ratios=(1.3, *[1.0] * len(below))).flat)
    _draw_verdict(next(rows), shown, grad_cam(network, image[None])[0], scores, names)
    if places:
        _draw_places(next(rows), shown, places)
    if channels:
        _draw_channels(next(rows), channels)
    return figure


def _draw_verdict(row: Any, picture: Array, heat: Array, scores: Array, names: list[str]) -> None:
    """The image, the evidence in it, and the most probable classes."""
    best = np.argsort(scores)[::-1][:SHOWN_CLASSES]
    image, evidence, bars = row.subplots(1, 3, width_ratios=(1, 1, 1.4))
    image.imshow(picture, cmap="gray")
    image.set_title("the image")
    evidence.imshow(picture, cmap="gray")
    evidence.imshow(heat, cmap="inferno", alpha=0.6, vmin=0, vmax=1)
    evidence.set_title(f"evidence for “{names[best[0]]}” (Grad-CAM)\nbright: speaks for it")
    for axes in (image, evidence):
        axes.set_axis_off()
    bars.barh([names[index] for index in best], scores[best], color=["tab:orange"] + ["tab:gray"] * (len(best) - 1))
    bars.invert_yaxis()
    bars.set_xlim(0, 1)
    bars.set_title("what the network says")
    bars.set_xlabel("probability")


def _draw_places(row: Any, picture: Array, gates: dict[str, Array]) -> None:
    """One spatial gate per block, all on one colour scale, over the ghost of the image."""
    row.suptitle("Which places each block keeps: the spatial gate, from the first block to the last", fontsize=11)
    panels = row.subplots(1, len(gates), squeeze=False)[0]
    low, high = _range(list(gates.values()))
    height, width = picture.shape[:2]
    for axes, (site, gate) in zip(panels, gates.items(), strict=True):
        axes.imshow(picture, cmap="gray", extent=(0, width, height, 0))
        mesh = axes.imshow(gate, cmap="viridis", alpha=0.75, vmin=low, vmax=high, extent=(0, width, height, 0))
        axes.set_title(f"{_short(site)}\n{gate.shape[0]} × {gate.shape[1]} places", fontsize=8)
        axes.set_axis_off()
    row.colorbar(mesh, ax=list(panels), label="the place is multiplied by", shrink=0.85, pad=0.01)


def _draw_channels(row: Any, gates: dict[str, Array]) -> None:
    """One curve per block: the channel gate, sorted."""
    row.suptitle("Which channels each block keeps: the channel gate, largest first", fontsize=11)
    panels = row.subplots(1, len(gates), squeeze=False, sharey=True)[0]
    for axes, (site, gate) in zip(panels, gates.items(), strict=True):
        ordered = np.sort(gate)[::-1]
        axes.fill_between(np.linspace(0, 100, len(ordered)), ordered, step="mid", color="tab:blue", alpha=0.5)
        axes.set_title(f"{_short(site)}\n{len(ordered)} channels", fontsize=8)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of channels", fontsize=8)
        axes.tick_params(labelsize=8)
    panels[0].set_ylim(0, max(1.0, *(float(gate.max()) for gate in gates.values())))
    panels[0].set_ylabel("the channel is multiplied by", fontsize=8)


def _places(maps: Maps) -> Array | None:
    """The spatial gate of the one image (H W); a joint gate averaged over its channels; None where there is none."""
    if "spatial" in maps:
        return _mean(maps["spatial"], 0)
    return _mean(maps["gate"], (0, 1)) if "gate" in maps else None


def _channels(maps: Maps) -> Array | None:
    """The channel gate of the one image (C); a joint gate averaged over its places; None where there is none."""
    if "channel" in maps:
        return _mean(maps["channel"], 0)
    return _mean(maps["gate"], (0, 2, 3)) if "gate" in maps else None


def _mean(gates: Array, axes: int | tuple[int, ...]) -> Array:
    averaged: Array = gates.mean(axes)
    return averaged


def _range(gates: list[Array]) -> tuple[float, float]:
    """The ends of the common colour scale, never of no width."""
    low, high = min(float(gate.min()) for gate in gates), max(float(gate.max()) for gate in gates)
    return (low, high) if high - low > 0.02 else (low - 0.05, high + 0.05)


def _short(site: str) -> str:
    """The name of a block without the word that every site has."""
    return site.removesuffix(".attention")


def _picture(image: Tensor) -> Array:
    """H W 3 or H W, from 0 to 1."""
    array: Array = image.detach().float().cpu().numpy().transpose(1, 2, 0)
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        array = (array - low) / (high - low)
    return array if array.shape[2] == 3 else array.mean(2)


def _evenly(sites: list[str], count: int) -> list[str]:
    """At most `count` of the sites, evenly spread, the first and the last among them."""
    if len(sites) <= count:
        return sites
    return [sites[round(index * (len(sites) - 1) / (count - 1))] for index in range(count)]
