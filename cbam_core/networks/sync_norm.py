"""Batch statistics over all workers, but not inside attention."""

from torch import nn

from cbam_core.attention import Attention


def synchronise_batch_norm(network: nn.Module) -> nn.Module:
    """`network` with its BatchNorms turned into SyncBatchNorm, in place, and those inside attention left as they are.

    A spatial gate normalises one map with a scale of its own: to synchronise two numbers would cost as many messages
    as a wide layer does, and the authors did not. Returns the network, or its replacement where it is itself a norm.
    """
    if isinstance(network, Attention):
        return network
    if isinstance(network, nn.modules.batchnorm._BatchNorm):
        from timm.layers.norm_act import convert_sync_batchnorm  # torch's own drops the activation that some norms hold

        synchronised: nn.Module = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        synchronised._forward_hooks.update(network._forward_hooks)  # attention that follows it
        return synchronised
    for name, child in network.named_children():
        setattr(network, name, synchronise_batch_norm(child))
    return network
