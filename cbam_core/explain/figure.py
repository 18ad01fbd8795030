"""One picture of what attention does with one image, for a reader who has nothing but the picture."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cbam_core.errors import NoFeatureMap
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
    label: int | None = None,
    max_blocks: int = 8,
) -> Figure:
    """The image, the class scores, Grad-CAM, and what attention does in every block, in one matplotlib figure.

    image        what the network gets, C H W
    class_names  what to call the classes; their numbers where left out
    picture      what a person shall see instead of `image`, C H W from 0 to 1: the image before normalisation
    label        the true class, from 0: shows whether the network is right
    max_blocks   at most so many blocks, evenly chosen, the last always among them

    Raises ValueError where the network has no attention, or the label or the names do not fit its classes. Uses no
    global state of pyplot; save it with `savefig`.
    """
    from matplotlib.figure import Figure

    gates = attention_maps(network, image[None])
    with evaluating(network), torch.no_grad():
        scores = network(image[None]).float().softmax(1)[0].cpu().numpy()
    names = list(class_names) if class_names is not None else [f"class {index}" for index in range(len(scores))]
    if len(names) != len(scores) or (label is not None and not 0 <= label < len(scores)):
        raise ValueError(f"the network has {len(scores)} classes; got {len(names)} names and the label {label}")
    shown = _picture(image if picture is None else picture)
    sites = _evenly(list(gates), max_blocks)
    found = ((row, {site: row.values(gates[site]) for site in sites}) for row in _ROWS)
    below = [(row, values) for row, of_sites in found if (values := _without_none(of_sites))]
    figure = Figure(figsize=(max(9.0, 1.9 * len(sites) + 3.1), 3.4 + 2.8 * len(below)), layout="constrained")
    ratios = (1.3, *[1.0] * len(below))
    top, *others = figure.subfigures(1 + len(below), 1, squeeze=False, height_ratios=ratios).flat
    _draw_verdict(top, shown, _evidence(network, image), scores, names=names, label=label)
    for subfigure, (row, values) in zip(others, below, strict=True):
        if row.of_places:
            _draw_places(subfigure, shown, row, values)
        else:
            _draw_channels(subfigure, row, values)
    return figure


def _evidence(network: nn.Module, image: Tensor) -> Array | str:
    """The heat map of one image, or why there is none."""
    try:
        heat: Array = grad_cam(network, image[None])[0]
    except NoFeatureMap as error:
        return str(error)
    return heat


def _draw_verdict(
    row: Any, picture: Array, heat: Array | str, scores: Array, *, names: list[str], label: int | None
) -> None:
    """The image, the evidence in it, and the most probable classes, and the true one."""
    best = [int(index) for index in np.argsort(scores)[::-1][:SHOWN_CLASSES]]
    said = best[0]
    if label is not None and label not in best:
        best.append(label)
    image, evidence, bars = row.subplots(1, 3, width_ratios=(1, 1, 1.4))
    image.imshow(picture, cmap="gray")
    image.set_title("the image" if label is None else f"the image: “{names[label]}”")
    evidence.imshow(picture, cmap="gray")
    evidence.set_title(f"evidence for “{names[said]}” (Grad-CAM)\nbright: speaks for it")
    if isinstance(heat, str):
        evidence.set_title(textwrap.fill(f"no Grad-CAM: {heat}", 40), fontsize=8)
    else:
        evidence.imshow(heat, cmap="inferno", alpha=0.6, vmin=0, vmax=1)
    for axes in (image, evidence):
        axes.set_axis_off()
    colours = ["tab:green" if index == label else "tab:orange" if index == said else "tab:gray" for index in best]
    drawn = bars.barh([names[index] for index in best], scores[best], color=colours)
    bars.bar_label(drawn, [f"{scores[index]:.1%}" for index in best], padding=3, fontsize=8)
    bars.invert_yaxis()
    bars.set_xlim(0, 1.15)
    verdict = "" if label is None else ": right" if said == label else f": wrong, it is “{names[label]}”"
    bars.set_title(f"what the network says{verdict}")
    bars.set_xlabel("probability")


def _draw_places(subfigure: Any, picture: Array, row: _Row, maps: dict[str, Array]) -> None:
    """The image, and beside it one map per block, each on a colour scale of its own."""
    subfigure.suptitle(f"{row.title}\ncolour: {row.label}, each block on its own scale", fontsize=11)
    first, *panels = subfigure.subplots(1, 1 + len(maps), squeeze=False)[0]
    first.imshow(picture, cmap="gray")
    first.set_title("the image", fontsize=8)
    first.set_axis_off()
    height, width = picture.shape[:2]
    for axes, (site, values) in zip(panels, maps.items(), strict=True):
        low, high = _range(values)
        mesh = axes.imshow(values, cmap="viridis", vmin=low, vmax=high, extent=(0, width, height, 0))
        axes.set_title(f"{_short(site)}\n{values.shape[0]} × {values.shape[1]} places", fontsize=8)
        axes.set_axis_off()
        scale = subfigure.colorbar(mesh, ax=axes, location="bottom", shrink=0.8, pad=0.02, ticks=(low, high))
        scale.ax.set_xticklabels([f"{low:.3g}", f"{high:.3g}"], fontsize=7)


def _draw_channels(subfigure: Any, row: _Row, gates: dict[str, Array]) -> None:
    """One curve per block: one number per channel, sorted."""
    subfigure.suptitle(f"{row.title}, largest first", fontsize=11)
    panels = subfigure.subplots(1, len(gates), squeeze=False, sharey=True)[0]
    for axes, (site, gate) in zip(panels, gates.items(), strict=True):
        ordered = np.sort(gate)[::-1]
        axes.fill_between(np.linspace(0, 100, len(ordered)), ordered, step="mid", color="tab:blue", alpha=0.5)
        axes.set_title(f"{_short(site)}\n{len(ordered)} channels", fontsize=8)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of channels", fontsize=8)
        axes.tick_params(labelsize=8)
    low, high = (end(float(end(gate)) for gate in gates.values()) for end in (min, max))
    panels[0].set_ylim(*((0, max(1.0, high)) if row.of_factors else _widened(min(0.0, low), max(0.0, high))))
    panels[0].set_ylabel(row.label, fontsize=8)


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


def _context(maps: Maps) -> Array | None:
    """How much each place counts in the context of the one image (H W)."""
    return _mean(maps["context"], 0) if "context" in maps else None


def _added(maps: Maps) -> Array | None:
    """What is added to each channel of the one image (C)."""
    return _mean(maps["added"], 0) if "added" in maps else None


@dataclass(frozen=True)
class _Row:
    """One kind of map: how it is read from what a site gave, what it is, and what its numbers say."""

    values: Callable[[Maps], Array | None]
    title: str
    label: str
    of_places: bool
    of_factors: bool = True


_ROWS = (
    _Row(_places, "Which places each block keeps: the spatial gate", "the place is multiplied by", of_places=True),
    _Row(
        _context,
        "Where each block's context comes from",
        "weight of the place in it (1 is an average place)",
        of_places=True,
        of_factors=False,
    ),
    _Row(
        _channels, "Which channels each block keeps: the channel gate", "the channel is multiplied by", of_places=False
    ),
    _Row(
        _added,
        "What each block's context adds to the channels",
        "is added to the channel",
        of_places=False,
        of_factors=False,
    ),
)


def _without_none(values: dict[str, Array | None]) -> dict[str, Array]:
    return {site: found for site, found in values.items() if found is not None}


def _mean(gates: Array, axes: int | tuple[int, ...]) -> Array:
    averaged: Array = gates.mean(axes)
    return averaged


def _range(values: Array) -> tuple[float, float]:
    """The ends of the colour scale of one map, never of no width."""
    return _widened(float(values.min()), float(values.max()))


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high - low > 1e-3 else (low - 0.05, high + 0.05)


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
