"""Where attention goes in a network of timm's: on the branch of each block, before the shortcut is added.

timm's networks do not agree on how they name their blocks, so they are found by looking: a copy on the meta device
runs once. A block is the outermost module that ends in the sum of a shortcut and a branch, or that has a place for SE
or stochastic depth; and where no shortcut is near, one of two or more layers with weights. Attention stands in the
first of these places that the image passes exactly once, as a map, and that the shortcut goes around:

se         in the place of `se`, where timm puts SE and this network has none
drop_path  before `drop_path2` or `drop_path`
branch     after the module whose output is added to the shortcut
output     after the block, where it has no shortcut
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import nn

from cbam_core.errors import AttentionNotSupported
from cbam_core.networks.pretrained import create_timm
from cbam_core.networks.timm_trace import Trace

NOT_BLOCKS = ("stem", "head", "final_conv", "pre_logits", "classifier", "patch_embed", "msfa")
"""Children of a network that look like blocks and are not."""
BESIDE_BLOCKS = ("downsample", "transition", "cpe", "global_block", "pool")
"""Parts of stages that look like blocks and are not."""
DROP_PATHS = ("drop_path2", "drop_path")
Place = Literal["se", "drop_path", "branch", "output"]


@dataclass(frozen=True)
class Feature:
    """A map of one image: its channels, whether they lie last (N H W C), and its height."""

    channels: int
    channels_last: bool
    height: int


@dataclass(frozen=True)
class Site:
    """One place for attention: by the dotted name of a module, which it replaces (se), precedes (drop_path) or follows.

    feature       the map that attention sees there
    end           the module that returns what leaves the block
    end_feature   that map
    stage         the stage of the block: what lies at one resolution, from 1
    """

    module: str
    place: Place
    feature: Feature
    end: str
    end_feature: Feature
    stage: int = 0


@lru_cache(maxsize=64)
def find_sites(name: str) -> tuple[Site, ...]:
    """The sites in timm's network `name`, in their order. Raises AttentionNotSupported, which says why, without one."""
    with torch.device("meta"):
        network = create_timm(name).eval()
        _open_slots(network)
        trace = Trace()
        trace.run(network, torch.zeros(1, *vars(network)["pretrained_cfg"]["input_size"]))
    search = _Search(network, trace)
    found = tuple(search.inside(network, "")) or tuple(search.feature_points())
    reason = search.refused or (search.on_trunk(found) if found else search.reason())
    if reason:
        raise AttentionNotSupported(f"timm:{name} cannot carry attention: {reason}")
    heights = sorted({site.end_feature.height for site in found}, reverse=True)
    return tuple(replace(site, stage=heights.index(site.end_feature.height) + 1) for site in found)


def _open_slots(network: nn.Module) -> None:
    """Put a module that does nothing where there is None, to see whether it is called."""
    for module in network.modules():
        for slot in ("se", *DROP_PATHS):
            if getattr(module, slot, module) is None:
                setattr(module, slot, nn.Identity())


class _Search:
    """Looks for sites in a network and the trace of one image through it."""

    def __init__(self, network: nn.Module, trace: Trace) -> None:
        self.network, self.trace = network, trace
        shortcuts = [node for node in trace.nodes if trace.is_shortcut(node)]
        self._adding = {node.module for node in shortcuts}
        self._adding_maps = {node.module for node in shortcuts if len(node.shape) == 4}
        self.refused: str | None = None

    def inside(self, module: nn.Module, prefix: str) -> Iterator[Site]:
        """The sites inside `module`, whose dotted name is `prefix`."""
        for name, child in module.named_children():
            path = f"{prefix}.{name}" if prefix else name
            if name.startswith(BESIDE_BLOCKS) or (not prefix and name.startswith(NOT_BLOCKS)):
                continue
            site = self._on_branch(child, path)
            sites = [site] if site or self.refused else list(self.inside(child, path))
            if all(site is None or site.place == "output" for site in sites):
                sites = [self._behind(child, path)] if self._behind(child, path) else sites
            yield from (site for site in sites if site)

    def feature_points(self) -> Iterator[Site]:
        """Where timm itself takes features from, one for each resolution: for networks without blocks, such as VGG."""
        found: dict[int, Site] = {}
        if self._adding:
            return
        for point in vars(self.network)["feature_info"]:
            call = self.trace.called_once(point["module"])
            if call and (feature := self._feature(call.outputs)):
                found[feature.height] = Site(point["module"], "output", feature, point["module"], feature)
        yield from found.values()

    def on_trunk(self, sites: tuple[Site, ...]) -> str | None:
        """Why gradients would not reach the stem through attention on the only way to it; None where they would."""
        norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
        scaled = any(isinstance(module, norms) for module in self.network.modules())
        if self._adding or scaled or len(sites) == 1:
            return None
        return "it has neither shortcuts nor norms, and what its gates take away nothing gives back"

    def reason(self) -> str:
        """Why there is no site: what the blocks return, where that is no map."""
        shapes = [self.trace.nodes[number].shape for calls in self.trace.calls.values() for number in calls[0].outputs]
        if any(len(shape) == 3 for shape in shapes):
            return "its blocks return tokens N L C, not maps"
        if any(issubclass(calls[0].returned, tuple | list) for calls in self.trace.calls.values()):
            return "its blocks return several maps"
        return "it has no blocks that can be told apart"

    def _on_branch(self, module: nn.Module, path: str) -> Site | None:
        """The site on the branch of the block `module`; None where it is no block."""
        call = self.trace.called_once(path)
        end = self._feature(call.outputs) if call and call.inputs else None
        if call is None or end is None:
            return None
        branch = self.trace.branch(call, path)
        slots: list[tuple[str, Place]] = [(name, "drop_path") for name in DROP_PATHS]
        if isinstance(getattr(module, "se", None), nn.Identity):
            slots.insert(0, ("se", "se"))
        for slot, place in slots:
            inner = self.trace.called_once(f"{path}.{slot}")
            feature = self._feature(inner.inputs) if inner else None
            if inner and feature and (branch is None or self.trace.bypasses(call, inner.inputs[0])):
                return Site(f"{path}.{slot}", place, feature, path, end)
        if branch is None:
            if path in self._adding_maps:
                self.refused = self.refused or f"{path} does not end in the sum of a shortcut and one branch"
            return None
        for maker in self._makers(path, branch):
            if feature := self._feature(self.trace.calls[maker][0].outputs):
                return Site(maker, "branch", feature, path, end)
        self.refused = self.refused or f"the branch of {path} is not what one of its modules returns"
        return None

    def _behind(self, module: nn.Module, path: str) -> Site | None:
        """The site behind a block without any shortcut."""
        call = self.trace.called_once(path)
        if call is None or not call.outputs or not _is_composite(module) or self._has_shortcut(path):
            return None
        end = path if len(call.outputs) == 1 and issubclass(call.returned, torch.Tensor) else None
        end = end or next(self._makers(path, call.outputs[0]), None)
        feature = self._feature(call.outputs[:1])
        return Site(end, "output", feature, end, feature) if end and feature else None

    def _has_shortcut(self, path: str) -> bool:
        """Whether `path`, a part of it, or what it is a part of, adds a shortcut."""
        return any(_is_part(module, path) or _is_part(path, module) for module in self._adding)

    def _makers(self, path: str, value: int) -> Iterator[str]:
        """The modules in `path` that return `value`, or what it is a multiple of: outermost first."""
        inside = [
            (name, call)
            for name, _ in self.network.named_modules()
            if name.startswith(f"{path}.") and (call := self.trace.called_once(name))
        ]
        for number in self.trace.chain(value):
            returning = [(name, call) for name, call in inside if call.outputs == (number,)]
            yield from (name for name, call in returning if number not in call.inputs)
            yield from (name for name, call in returning if number in call.inputs)

    def _feature(self, values: tuple[int, ...]) -> Feature | None:
        """The map that `values` are, of a square image; None where they are something else."""
        shape = self.trace.nodes[values[0]].shape if len(values) == 1 else ()
        if len(shape) != 4 or shape[0] != 1:
            return None
        if shape[2] == shape[3]:
            return Feature(shape[1], channels_last=False, height=shape[2])
        return Feature(shape[3], channels_last=True, height=shape[1]) if shape[1] == shape[2] else None


def _is_part(module: str, whole: str) -> bool:
    return module == whole or module.startswith(f"{whole}.")


def _is_composite(module: nn.Module) -> bool:
    is_list = isinstance(module, nn.Sequential | nn.ModuleList) or type(module).__name__.endswith("Stage")
    return not is_list and sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in module.modules()) > 1
