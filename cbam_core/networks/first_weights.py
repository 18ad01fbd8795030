"""First weights that depend on the seed and on a parameter's name alone, not on what was built before it.

So a plain and an attentive network of one seed share the weights of every module that they share by name. Any rule for
first weights works, timm's too: building is deterministic, so it is done once on the meta device, to learn under which
name each parameter ends, and then for real, with a generator that is seeded anew whenever a parameter is filled.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from cbam_core.seeding import seed_of

_METHODS = "normal_ uniform_ random_ bernoulli_ exponential_ log_normal_ cauchy_ geometric_"
_RULES = (
    "normal_ uniform_ trunc_normal_ kaiming_normal_ kaiming_uniform_ xavier_normal_ xavier_uniform_ orthogonal_ sparse_"
)
FILLINGS = frozenset(
    (*(getattr(Tensor, name) for name in _METHODS.split()), *(getattr(nn.init, name) for name in _RULES.split()))
)
"""What fills a tensor at random: torch's methods, and its rules for first weights, which end in these."""


def parameter_names(build: Callable[[], nn.Module]) -> tuple[str, ...]:
    """The qualified names of the parameters of `build()` in the order they are made, found on the meta device.

    A parameter that the finished network does not have has no name.
    """
    with torch.device("meta"), _SkipFillings(), _registered() as made:
        network = build()
    return _names_in(network, made)


def build_seeded(build: Callable[[], nn.Module], names: Sequence[str], seed: int) -> nn.Module:
    """`build()` with the n-th filling of each parameter a function of `seed`, its name and n, on the default device.

    `names` are what `parameter_names` says of `build`. The device's own generator is afterwards as it was.
    """
    generator = _default_generator(torch.get_default_device())
    state = generator.get_state()
    try:
        generator.manual_seed(seed_of(seed, "weights"))  # for what is drawn before the first parameter
        with _registered() as made, _SeedParameters(made, names, seed, generator):
            network = build()
    finally:
        generator.set_state(state)
    found = _names_in(network, made)  # a network that published weights were taken from comes behind
    if found[: len(names)] != tuple(names) or any(found[len(names) :]):
        raise RuntimeError("a network has other parameters on the meta device: its first weights cannot be seeded")
    return network


@contextmanager
def _registered() -> Iterator[list[nn.Parameter]]:
    """The parameters that this thread gives to modules meanwhile, each once."""
    made: list[nn.Parameter] = []
    seen: set[int] = set()
    thread = threading.get_ident()

    def note(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and id(parameter) not in seen and threading.get_ident() == thread:
            seen.add(id(parameter))
            made.append(parameter)

    handle = register_module_parameter_registration_hook(note)
    try:
        yield made
    finally:
        handle.remove()


def _names_in(network: nn.Module, parameters: list[nn.Parameter]) -> tuple[str, ...]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return tuple(names.get(id(parameter), "") for parameter in parameters)


def _default_generator(device: torch.device) -> torch.Generator:
    if device.type != "cuda":
        return torch.default_generator
    torch.cuda.init()
    return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]


class _SkipFillings(TorchFunctionMode):
    """Leaves out random fillings: on the meta device they change nothing, and take a millisecond each."""

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, or return the tensor as it is."""
        kwargs = kwargs or {}
        return _filled(args, kwargs) if function in FILLINGS else function(*args, **kwargs)


class _SeedParameters(TorchFunctionMode):
    """Seeds the generator whenever a parameter is filled at random.

    Other draws go on with the sequence: those that reject values of the parameter filled last, and so belong to it.
    """

    def __init__(self, made: list[nn.Parameter], names: Sequence[str], seed: int, generator: torch.Generator) -> None:
        super().__init__()
        self._made, self._names, self._seed, self._generator = made, names, seed, generator
        self._numbers: dict[int, int] = {}  # of `made`, by the memory of the parameter
        self._known = 0
        self._fillings: Counter[int] = Counter()

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation."""
        kwargs = kwargs or {}
        if function in FILLINGS:
            self._seed_for(_filled(args, kwargs))
        return function(*args, **kwargs)

    def _seed_for(self, tensor: Tensor) -> None:
        for number in range(self._known, len(self._made)):
            self._numbers[_storage(self._made[number])] = number
        self._known = len(self._made)
        number = self._numbers.get(_storage(tensor), len(self._names))
        if number >= len(self._names) or _storage(self._made[number]) != _storage(tensor):
            return
        filling = (self._names[number], self._fillings[number])
        self._fillings[number] += 1
        self._generator.manual_seed(seed_of(self._seed, "weights", *filling))


def _filled(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    """The tensor that one of FILLINGS is called for."""
    tensor: Tensor = args[0] if args else kwargs["tensor"]
    return tensor


def _storage(tensor: Tensor) -> int:
    """What tells the memory of `tensor` from that of all others."""
    return int(tensor.untyped_storage()._cdata)
