"""Batch norm folded into the convolutions before it: the same function in eval mode, with less to read and write."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(network: nn.Module, pairs: Mapping[str, str]) -> None:
    """Replace, in each part of ``network`` that has them, a convolution and its batch norm by one convolution.

    pairs: attribute of the convolution -> attribute of the batch norm that alone takes its output. The network must be
    in eval mode; results differ by rounding only.
    """
    for module in list(network.modules()):
        for first, second in pairs.items():
            convolution, norm = getattr(module, first, None), getattr(module, second, None)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, first, fuse_conv_bn_eval(convolution, norm))
                setattr(module, second, nn.Identity())
