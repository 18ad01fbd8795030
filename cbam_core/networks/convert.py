"""Weights in the authors' layout, timm's and ours: the same numbers under other names and in other shapes.

The authors' layout is that of github.com/Jongchan/attention-module; timm's that of its ResNets with
`block_args=dict(attn_layer="cbam")`. Residual networks, and the lone modules CBAM, SE, ECA (timm), BAM (authors).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from cbam_core.errors import StateDictMismatch

Layout = Literal["ours", "authors", "timm"]


@dataclass(frozen=True)
class Part:
    """One layer of an attention module: its name in each layout (None: it has no such layer), and how timm stores it.

    linear: timm has a 1×1 convolution. flipped: timm feeds [mean, max] where the authors and we feed [max, mean].
    """

    ours: str
    authors: str | None
    timm: str | None
    in_timm: Literal["same", "linear", "flipped"] = "same"

    def name(self, layout: Layout) -> str | None:
        """The layer's name in `layout`."""
        return {"ours": self.ours, "authors": self.authors, "timm": self.timm}[layout]


PARTS = (
    Part("channel.fc1", "ChannelGate.mlp.1", "channel.fc1", "linear"),
    Part("channel.fc2", "ChannelGate.mlp.3", "channel.fc2", "linear"),
    Part("spatial.conv", "SpatialGate.spatial.conv", "spatial.conv.conv", "flipped"),
    Part("spatial.norm", "SpatialGate.spatial.bn", "spatial.conv.bn"),
    Part("fc1", None, "fc1", "linear"),
    Part("fc2", None, "fc2", "linear"),
    Part("conv", None, "conv"),
    Part("channel.0", "channel_att.gate_c.gate_c_fc_0", None),
    Part("channel.1", "channel_att.gate_c.gate_c_bn_1", None),
    Part("channel.3", "channel_att.gate_c.gate_c_fc_final", None),
    Part("spatial.0", "spatial_att.gate_s.gate_s_conv_reduce0", None),
    Part("spatial.1", "spatial_att.gate_s.gate_s_bn_reduce0", None),
    Part("spatial.3", "spatial_att.gate_s.gate_s_conv_di_0", None),
    Part("spatial.4", "spatial_att.gate_s.gate_s_bn_di_0", None),
    Part("spatial.6", "spatial_att.gate_s.gate_s_conv_di_1", None),
    Part("spatial.7", "spatial_att.gate_s.gate_s_bn_di_1", None),
    Part("spatial.9", "spatial_att.gate_s.gate_s_conv_final", None),
)
BLOCK_SITE: dict[Layout, str] = {"ours": "attention", "authors": "cbam", "timm": "se"}
STAGE_SITE: dict[Layout, str] = {"ours": "attention", "authors": "bam", "timm": "attention"}

_LEAF = r"(?P<leaf>weight|bias|running_mean|running_var|num_batches_tracked)"
_BACKBONE = re.compile(rf"(conv1|bn1|fc|layer[1-9]\.\d+\.(conv[123]|bn[123]|downsample\.[01]))\.{_LEAF}")
_IN_BLOCK = r"layer[1-9]\.\d+\."
_NORM = re.compile(r"(.*\.)?(bn\d|norm|downsample\.1|channel\.1|spatial\.[147])")


def convert_state_dict(
    state: Mapping[str, Tensor], *, source: Layout, target: Layout, prefix: str = ""
) -> dict[str, Tensor]:
    """`state` in the layout `target`: every weight of `source` under its other name, in the same order.

    state   weights of a residual network or of one attention module; a leading `module.` (DataParallel) is dropped
    source  the layout `state` has: ours, authors or timm
    target  the layout it shall have
    prefix  put before every new name; `module.` where the authors' own training script shall load the file

    No number changes, so converting there and back is bit-identical. timm's shared MLP has biases only where it is
    built with `mlp_bias=True`; ours has none with `mlp_bias: false`.
    Raises StateDictMismatch that names the first weight which `source` does not know, which `target` has no place
    for, or which is missing. Raises ValueError for a layout that does not exist.
    """
    for layout in (source, target):
        if layout not in get_args(Layout):
            raise ValueError(f"unknown layout {layout!r}; known are {', '.join(get_args(Layout))}")
    ours = {key: _renamed(key.removeprefix("module."), source, "ours") for key in state}
    _check_complete(set(ours.values()))
    return {
        prefix + _renamed(ours[key], "ours", target): _reshaped(tensor, ours[key], source, target)
        for key, tensor in state.items()
    }


def _renamed(key: str, source: Layout, target: Layout) -> str:
    """The name in `target` of a weight called `key` in `source`. Raises StateDictMismatch where there is none."""
    if _BACKBONE.fullmatch(key):
        return key
    for part in PARTS:
        found = _site(key, part, source)
        if found is None:
            continue
        name = part.name(target)
        if name is None:
            raise StateDictMismatch(f"unexpected {key}: the layout {target} has no place for it")
        return f"{_renamed_site(found['site'], source, target)}{name}.{found['leaf']}"
    raise StateDictMismatch(f"unexpected {key}: no weight of a residual network or attention module of layout {source}")


def _site(key: str, part: Part, layout: Layout) -> re.Match[str] | None:
    """Where the attention module stands whose `part` is called `key`: in a block, after a stage, or alone."""
    name = part.name(layout)
    if name is None:
        return None
    site = rf"(?P<site>{_IN_BLOCK}{BLOCK_SITE[layout]}\.|{STAGE_SITE[layout]}[1-9]\.|)"
    return re.fullmatch(rf"{site}{re.escape(name)}\.{_LEAF}", key)


def _renamed_site(site: str, source: Layout, target: Layout) -> str:
    if site.startswith("layer"):
        return site.replace(f".{BLOCK_SITE[source]}.", f".{BLOCK_SITE[target]}.")
    return site.replace(STAGE_SITE[source], STAGE_SITE[target])


def _reshaped(tensor: Tensor, ours: str, source: Layout, target: Layout) -> Tensor:
    """`tensor` as `target` stores it; `ours` is its name in our layout."""
    if (source == "timm") == (target == "timm") or not ours.endswith(".weight"):
        return tensor
    part = next((part for part in PARTS if _site(ours, part, "ours")), None)
    if part is None or part.in_timm == "same":
        return tensor
    if part.in_timm == "flipped":
        return tensor.flip(1)
    return tensor[:, :, None, None] if target == "timm" else tensor.flatten(1)


def _check_complete(keys: set[str]) -> None:
    """Raises StateDictMismatch that names the first weight (in our layout) which must be there and is not."""
    if not keys:
        raise StateDictMismatch("there are no weights at all")
    missing = sorted(_required(keys) - keys)
    if missing:
        raise StateDictMismatch(f"{len(missing)} weights missing, the first is {missing[0]}")


def _required(keys: set[str]) -> set[str]:
    """The weights that must be there because others are: every layer whole, every module and network whole."""
    layers = {key.rpartition(".")[0] for key in keys}
    layers |= set(_sibling_layers(layers))
    norms = [layer for layer in layers if _NORM.fullmatch(layer)]
    whole = {f"{norm}.{leaf}" for norm in norms for leaf in ("bias", "running_mean", "running_var")}
    head = {"fc.bias"} if "fc" in layers else set()
    return {f"{layer}.weight" for layer in layers} | whole | head


def _sibling_layers(layers: set[str]) -> Iterator[str]:
    """The layers that stand beside `layers` in every module that has one of them."""
    for layer in layers:
        site, _, name = layer.rpartition(".")
        if name in ("fc1", "fc2"):
            yield from (f"{site}.{other}".lstrip(".") for other in ("fc1", "fc2"))
    if any(layer.startswith("layer") for layer in layers):
        deep = any(layer.endswith("conv3") for layer in layers)
        blocks = {match[0] for layer in layers if (match := re.match(_IN_BLOCK, layer))}
        yield from ("conv1", "bn1", "fc")
        for block in _without_gaps(blocks):
            yield from (f"{block}{kind}{index}" for kind in ("conv", "bn") for index in range(1, 4 if deep else 3))


def _without_gaps(blocks: set[str]) -> Iterator[str]:
    """`blocks` (`layer2.1.` …) and those that must stand before them."""
    for block in blocks:
        stage, index = block.removeprefix("layer").rstrip(".").split(".")
        yield from (f"layer{stage}.{before}." for before in range(int(index) + 1))
        yield from (f"layer{before}.0." for before in range(1, int(stage)))
