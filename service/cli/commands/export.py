"""`cbam export`: weights in the layout that others read."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cbam_core.errors import CbamError
from service.cli.output import AsJson, print_json, say

if TYPE_CHECKING:
    from torch import Tensor


class LayoutName(StrEnum):
    """Whose names and shapes."""

    OURS = "ours"
    AUTHORS = "authors"
    TIMM = "timm"


class NotWeights(CbamError):
    """This file holds no weights."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(export)


def export(
    weights: Annotated[Path, typer.Argument(help="Weights: .safetensors, or .pt / .pth with a state dict.")],
    output: Annotated[Path, typer.Argument(help="Where to write them: .safetensors, or .pt / .pth.")],
    *,
    source: Annotated[LayoutName, typer.Option("--from", help="Layout of the weights.")] = LayoutName.OURS,
    target: Annotated[LayoutName, typer.Option("--to", help="Layout to write.")] = LayoutName.TIMM,
    prefix: Annotated[str, typer.Option(help="Put before every name, e.g. module. for the authors' script.")] = "",
    as_json: AsJson = False,
) -> None:
    """Convert weights of attention modules and residual networks between our layout, the authors' and timm's."""
    from cbam_core.networks.convert import convert_state_dict

    state = convert_state_dict(_read(weights), source=source.value, target=target.value, prefix=prefix)
    _write(output, state)
    if as_json:
        print_json({"file": str(output), "layout": target.value, "tensors": len(state)})
    else:
        say(f"{len(state)} tensors in the layout of {target}: {output}")


def _read(path: Path) -> "dict[str, Tensor]":
    """The state dict in a file; the authors keep theirs under `state_dict`. Nothing but tensors is unpickled."""
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise NotWeights(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise NotWeights(f"{path} holds no state dict: names and tensors")
    return state


def _write(path: Path, state: "dict[str, Tensor]") -> None:
    import torch
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
