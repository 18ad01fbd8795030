"""The end of a residual block with CBAM, relu(CBAM(norm(x)) + shortcut), as one operator of Triton kernels.

`CBAM.residual` uses it by itself where it applies; `refusal` says why it does not. The derivation is in
docs/design/fused.md.
"""

from cbam_core.fused.tail import configure, refusal, residual, unavailable, unsupported

__all__ = ["configure", "refusal", "residual", "unavailable", "unsupported"]
