"""The science of cbam-lab as a plain PyTorch library: attention modules, networks, and what explains them."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of `package`: each name in `homes` comes from the module of the package that is its home.

    So importing the package loads no torch.
    """

    def from_home(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return from_home
