"""What one image passes on its way through a network: which module made which map from which others.

The network is on the meta device, so nothing is computed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHTED = ("convolution", "addmm", "mm", "bmm")
"""Operations that make a path one layer longer."""
ADDITIONS = ("add", "add_")


@dataclass(frozen=True)
class Node:
    """One value that depends on the image.

    parents    the values it was computed from, by number
    depth      layers with weights on the longest way from the image
    shape      of its tensor
    module     the innermost module that computed it
    is_sum     whether it is the sum of two parents of its own shape
    """

    parents: tuple[int, ...]
    depth: int
    shape: tuple[int, ...]
    module: str
    is_sum: bool


@dataclass(frozen=True)
class Call:
    """One call of a module: the numbers of the values it was given and returned, and the type of what it returned."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    returned: type


class Trace(TorchDispatchMode):
    """The values of one run, in their order, and the calls of each module; the modules by their dotted names."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[Node] = []
        self.calls: dict[str, list[Call]] = {}
        self.output: int | None = None
        self._numbers: dict[int, int] = {}
        self._held: list[Tensor] = []  # so that no tensor takes the place of one that has gone
        self._running: list[str] = []
        self._entered: list[tuple[int, ...]] = []

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and note what it made."""
        parents = self._of((args, kwargs))
        result = function(*args, **(kwargs or {}))
        if parents:
            name = function.overloadpacket.__name__
            depth = max(self.nodes[parent].depth for parent in parents) + (name in WEIGHTED)
            for tensor in _tensors(result):
                shape = tuple(tensor.shape)
                is_sum = name in ADDITIONS and [self.nodes[parent].shape for parent in parents] == [shape, shape]
                self._note(tensor, Node(parents, depth, shape, self._running[-1] if self._running else "", is_sum))
        return result

    def run(self, network: nn.Module, image: Tensor) -> None:
        """Note what `network` does with `image`."""
        for name, module in network.named_modules():
            module.register_forward_pre_hook(self._enter(name), with_kwargs=True)
            module.register_forward_hook(self._leave(name))
        self._note(image, Node((), 0, tuple(image.shape), "", is_sum=False))
        with torch.no_grad(), self:
            result = network(image)
        self.output = next(iter(self._of(result)), None)

    def called_once(self, name: str) -> Call | None:
        """The only call of the module `name`; None where it was called never or twice."""
        calls = self.calls.get(name, [])
        return calls[0] if len(calls) == 1 else None

    def is_shortcut(self, node: Node) -> bool:
        """Whether `node` is the sum of a shortcut and a branch, which has more layers."""
        return node.is_sum and self.nodes[node.parents[0]].depth != self.nodes[node.parents[1]].depth

    def branch(self, call: Call, module: str) -> int | None:
        """The deeper summand, where what `call` of `module` returned is a sum of its own of a shortcut and a branch.

        None where it is not. Behind the sum there may be a norm, a ReLU, and further sums of tokens.
        """
        number: int | None = call.outputs[0]
        while number is not None:
            *_, end = self.chain(number)
            node, number = self.nodes[end], None
            if node.module == module and self.is_shortcut(node):
                shallow, deep = sorted(node.parents, key=lambda parent: self.nodes[parent].depth)
                if len(node.shape) == 4:
                    return deep
                number = shallow
        return None

    def chain(self, value: int) -> Iterator[int]:
        """`value`, what it alone was made from without a layer with weights, and so on."""
        while True:
            yield value
            parents = set(self.nodes[value].parents)
            depth = self.nodes[value].depth
            if len(parents) != 1 or self.nodes[value := parents.pop()].depth != depth:
                return

    def bypasses(self, call: Call, value: int) -> bool:
        """Whether a way leads from what `call` was given to what it returned that does not pass `value`."""
        reached = {call.outputs[0]} - {value}
        for number in range(call.outputs[0], min(call.inputs), -1):
            if number in reached and number not in call.inputs:
                reached.update(parent for parent in self.nodes[number].parents if parent != value)
        return bool(reached & set(call.inputs))

    def _note(self, tensor: Tensor, node: Node) -> None:
        self._numbers[id(tensor)] = len(self.nodes)
        self.nodes.append(node)
        self._held.append(tensor)

    def _of(self, values: Any) -> tuple[int, ...]:
        return tuple(self._numbers[id(tensor)] for tensor in _tensors(values) if id(tensor) in self._numbers)

    def _enter(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            self._running.append(name)
            self._entered.append(self._of((args, kwargs)))

        return hook

    def _leave(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._running.pop()
            call = Call(self._entered.pop(), self._of(output), type(output))
            self.calls.setdefault(name, []).append(call)

        return hook


def _tensors(values: Any) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
