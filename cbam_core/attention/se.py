"""SE: Squeeze-and-Excitation (Hu, Shen, Sun, CVPR 2018, arXiv 1709.01507)."""

from cbam_core.attention.arguments import check_arguments
from cbam_core.attention.cbam import ChannelAttention
from cbam_core.attention.options import SEOptions


class SE(ChannelAttention):
    """The gate sigmoid( W1 relu(W0 avgpool_HW(F)) ) (equations 2 and 3): CBAM's channel half with one pool.

    Without the rounding of hidden widths to multiples of eight that some libraries do.
    Raises ValueError where an argument is none that SEOptions takes.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        check_arguments(SEOptions, channels, reduction=reduction)
        super().__init__(channels, reduction, pools=("avg",))
