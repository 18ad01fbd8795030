"""The parts of a network by the names of their weights: the head, the attention, and the rest, which is the backbone.

And what of them does not learn.
"""

from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from cbam_core.attention import Attention
from cbam_core.errors import SpecError
from cbam_core.initial_weights.options import BACKBONE
from cbam_core.suggestions import did_you_mean


def attention_sites(network: nn.Module) -> list[str]:
    """The names of the attention modules."""
    return [name for name, module in network.named_modules() if isinstance(module, Attention)]


def head_names(network: nn.Module) -> tuple[str, ...]:
    """The names of the modules that give the class scores."""
    published = getattr(network, "pretrained_cfg", None)
    named = published.get("classifier") if isinstance(published, dict) else "fc"
    return (named,) if isinstance(named, str) else tuple(named or ())


def is_below(name: str, modules: Iterable[str]) -> bool:
    """Whether `name` is one of the modules, or of what is in one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def freeze(network: nn.Module, names: Sequence[str]) -> None:
    """Have the weights of the named modules not learn; `backbone` is all but the head and the attention.

    Raises SpecError for a name of no module with weights, and where nothing is left to learn.
    """
    apart = [*attention_sites(network), *head_names(network)]
    weights = dict(network.named_parameters())
    for name in names:
        found = [
            weight
            for full, weight in weights.items()
            if (not is_below(full, apart) if name == BACKBONE else is_below(full, [name]))
        ]
        if not found:
            known = [module for module, _ in network.named_modules() if module]
            raise SpecError(f"freeze: the network has no weights in a module {name}{did_you_mean(name, known)}")
        for weight in found:
            weight.requires_grad_(False)
    if names and not any(weight.requires_grad for weight in weights.values()):
        raise SpecError(f"freeze: nothing is left to learn besides {', '.join(names)}")


def frozen_modules(network: nn.Module) -> Iterator[nn.Module]:
    """The modules none of whose weights learn."""
    for module in network.modules():
        weights = list(module.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            yield module


def train_mode(network: nn.Module) -> None:
    """Put the network into training mode, all but what is frozen: norms there keep their statistics."""
    network.train()
    for module in frozen_modules(network):
        module.eval()
