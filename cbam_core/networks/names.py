"""The backbones a spec may name, and how many stages each has. Torch-free; the builders are in their own files."""

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
CIFAR_RESNETS = ("cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56", "cifar_resnet110")
BACKBONES = (*RESNETS, *CIFAR_RESNETS)


def stage_count(backbone: str) -> int:
    """How many stages (groups of blocks at one resolution) `backbone` has."""
    return 3 if backbone in CIFAR_RESNETS else 4
