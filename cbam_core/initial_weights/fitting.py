"""Fits the weights of a file into a network: each of them, but for what the spec leaves out, or a refusal by name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cbam_core.backbones import is_timm
from cbam_core.errors import StateDictMismatch
from cbam_core.initial_weights.options import WeightsSpec
from cbam_core.initial_weights.reading import WeightsFile
from cbam_core.initial_weights.report import WeightsReport
from cbam_core.networks.convert import Layout, convert_state_dict
from cbam_core.networks.parts import attention_sites, head_names, is_below
from cbam_core.normalisation import Normalisation
from cbam_core.spec import ModelSpec

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of the images that the authors' script and torchvision train with."""
_ATTENTION = re.compile(r"(?:.*\.)?attention(?:\d+|_\w+)?\..+")
"""Weights in attention that the network at hand may not have, as our networks name them."""
_OF_AUTHORS = re.compile(r"(?:.*\.)?(?:cbam|bam\d)\..+")
_OF_TIMM = re.compile(r"layer\d\.\d+\.se\..+")
_SAID_OTHERWISE = ("weights", "pretrained", "freeze")
_SHOWN = 3


def fit_file(
    network: nn.Module,
    file: WeightsFile,
    options: WeightsSpec,
    *,
    model: ModelSpec,
    classes: Sequence[str] | None = None,
    semantics: int | None = None,
) -> WeightsReport:
    """Load the weights of `file` into `network`, which `model` describes, and say what was loaded and what was not.

    On the meta device nothing is loaded, and the same is said. `classes` are the names that the head is for,
    `semantics` those of the experiment, each where they are known. Raises StateDictMismatch, with the names, where
    anything else than what `options` leave out is missing, left over, of another shape, not finite, or meant otherwise.
    """
    own = network.state_dict()
    state, layout = _in_our_names(file.state, own, model)
    _check_meaning(file.about, options, model=model, classes=classes, semantics=semantics)
    apart = _Apart(network, options)
    kept = {name: value for name, value in state.items() if not apart.left_out(name)}
    absent = [name for name in own if name not in kept]
    missing = [name for name in absent if not apart.left_out(name) and not name.endswith("num_batches_tracked")]
    _refuse("missing", missing, "attention: drop or head: drop starts those anew" if apart.all_of(missing) else "")
    _refuse("unexpected", [name for name in kept if name not in own], apart.advice(kept.keys() - own.keys()))
    clashing = [name for name in kept if kept[name].shape != own[name].shape]
    _refuse("of another shape", [_shapes(name, kept[name], own[name]) for name in clashing], apart.advice(clashing))
    if not any(value.is_meta for value in own.values()):
        _refuse("not finite", [name for name, value in kept.items() if not bool(value.isfinite().all())])
        with torch.no_grad():
            network.load_state_dict(kept, strict=False)
    return WeightsReport(
        source=options.source,
        sha256=file.sha256,
        layout=layout,
        loaded=len(kept),
        missing=tuple(absent),
        unexpected=tuple(name for name in state if name not in kept),
        normalisation=_normalised(file, options),
        differs=tuple(_differing(file.about, model)),
    )


def normalisation_of(file: WeightsFile, options: WeightsSpec, channels: int) -> Normalisation | None:
    """How images of so many channels are normalised for these weights; None: by their own mean and deviation."""
    found = {"file": file.normalisation, "imagenet": IMAGENET, "dataset": None}[_normalised(file, options)]
    return None if found is None else found.over(channels)


def _normalised(file: WeightsFile, options: WeightsSpec) -> str:
    if options.normalisation != "auto":
        return options.normalisation
    return "imagenet" if file.normalisation is None else "file"


class _Apart:
    """What of the network and of the file is not to be loaded."""

    def __init__(self, network: nn.Module, options: WeightsSpec) -> None:
        self._sites, self._heads = attention_sites(network), head_names(network)
        self._own = frozenset(network.state_dict())
        self._head, self._attention = options.head == "drop", options.attention == "drop"

    def _in_attention(self, name: str) -> bool:
        """Of a module of the network; or as ours are named, where the network has none of that name."""
        return is_below(name, self._sites) or (name not in self._own and _ATTENTION.fullmatch(name) is not None)

    def left_out(self, name: str) -> bool:
        """Whether a weight of the file is not loaded, and one of the network starts anew."""
        return (self._head and is_below(name, self._heads)) or (self._attention and self._in_attention(name))

    def all_of(self, names: Iterable[str]) -> bool:
        """Whether all of these are of the head or of attention."""
        return all(is_below(name, self._heads) or self._in_attention(name) for name in names)

    def advice(self, names: Iterable[str]) -> str:
        """What to do about names that do not fit."""
        named = list(names)
        if named and all(is_below(name, self._heads) for name in named):
            return "head: drop starts with a new one, for other classes"
        if named and all(self._in_attention(name) for name in named):
            return "attention: drop leaves the file's out"
        return ""


def _in_our_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor], model: ModelSpec) -> tuple[Any, Layout]:
    """The weights under our names, and whose names they had. Raises StateDictMismatch where a layout is not whole."""
    if is_timm(model.backbone) or all(name in own for name in state):
        return state, "ours"
    for layout, pattern in (("authors", _OF_AUTHORS), ("timm", _OF_TIMM)):
        if any(pattern.fullmatch(name) for name in state):
            source: Layout = "authors" if layout == "authors" else "timm"
            return convert_state_dict(state, source=source, target="ours"), source
    return state, "ours"


def _check_meaning(
    about: Mapping[str, Any],
    options: WeightsSpec,
    *,
    model: ModelSpec,
    classes: Sequence[str] | None,
    semantics: int | None,
) -> None:
    """Raise StateDictMismatch where weights would fit and mean something else."""
    theirs = about.get("classes")
    if options.head == "load" and isinstance(theirs, list) and classes is not None and list(theirs) != list(classes):
        raise StateDictMismatch(
            f"the head in the weights tells {len(theirs)} classes ({_few(theirs)}) apart, and these are "
            f"{len(classes)} ({_few(classes)}): head: drop starts with a new one"
        )
    attends = model.attention.type != "none" and options.attention == "load"
    before = about.get("semantics", semantics)
    if is_timm(model.backbone) and attends and semantics is not None and before != semantics:
        raise StateDictMismatch(
            f"the weights are of an experiment with semantics {before}, whose attention stands elsewhere in timm's "
            "networks: attention: drop starts with new modules"
        )


def _differing(about: Mapping[str, Any], model: ModelSpec) -> list[str]:
    """The fields of the model in which the experiment that the weights are from was another."""
    spec = about.get("spec")
    before = spec.get("model") if isinstance(spec, dict) else None
    if not isinstance(before, dict):
        return []
    now = model.model_dump(mode="json")
    return [name for name in now if name not in _SAID_OTHERWISE and before.get(name, now[name]) != now[name]]


def _refuse(problem: str, names: Sequence[str], advice: str = "") -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        ending = f"; {advice}" if advice else ""
        raise StateDictMismatch(f"{len(names)} weights {problem}: {', '.join(names[:_SHOWN])}{more}{ending}")


def _shapes(name: str, theirs: Tensor, ours: Tensor) -> str:
    return f"{name} ({_by(theirs)}, and {_by(ours)} in this network)"


def _by(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _few(names: Sequence[object]) -> str:
    return ", ".join(map(str, names[:_SHOWN])) + ("…" if len(names) > _SHOWN else "")
